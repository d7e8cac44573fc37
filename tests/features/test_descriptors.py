import warnings

import librosa
import numpy as np
import pytest

from tests.conftest import write_collection
from vae_jax import manifest
from vae_jax.config import get_config
from vae_jax.features import descriptors, extract, measures, spectral
from vae_jax.storage import files

RATE = 8000
RNG = np.random.default_rng(0)
TIME = np.arange(12 * RATE) / RATE


def feature(**changes):
    config = get_config().feature
    config.update(sample_rate=RATE, duration=12.0, n_mels=32, n_mfcc=8)
    config.update(changes)
    return config


def describe(waveform, **changes):
    return spectral.audio_feature(feature(**changes)).listen(waveform.astype(np.float32))[1]


def clicks(bpm, seconds=12.0):
    """Return a beat: short bursts of noise, the first of every four loud."""
    sound = 1e-4 * RNG.normal(size=int(seconds * RATE))
    for beat, start in enumerate(np.arange(0, seconds - 0.1, 60 / bpm)):
        first = int(start * RATE)
        burst = RNG.normal(size=400) * np.exp(-np.arange(400) / 60)
        sound[first : first + 400] += (0.5 if beat % 4 == 0 else 0.3) * burst
    return sound


def chord(*pitches, seconds=12.0):
    """Return notes (MIDI) with an overtone, struck every second."""
    time = TIME[: int(seconds * RATE)]
    notes = [
        np.sin(2 * np.pi * k * 440 * 2 ** ((pitch - 69) / 12) * time) / k**2
        for pitch in pitches
        for k in (1, 2)
    ]
    return 0.1 * np.sum(notes, axis=0) * np.exp(-(time % 1))


def cadence(root, third):
    """Return triads on the first, fourth, fifth and first degree of a key."""
    steps = (0, 5, 7, 0)
    sounds = (chord(root + s, root + s + third, root + s + 7, seconds=3.0) for s in steps)
    return np.concatenate([*sounds])


def attacks_by_definition(onsets):
    """Pick peaks one by one, as librosa's documentation of `peak_pick` says."""
    frame_rate = RATE / (measures.frame_length(RATE) / descriptors.STRIDE)
    x = (onsets - onsets.min()) / np.ptp(onsets)
    before, near, wait = (int(s * frame_rate) for s in (0.03, 0.10, 0.03))
    picked, last = 0, -np.inf
    for n in range(len(x)):
        is_highest = x[n] == x[max(0, n - before) : n + 1].max()
        is_above = x[n] >= x[max(0, n - near) : n + near + 1].mean() + 0.07
        if is_highest and is_above and n - last > wait:
            picked, last = picked + 1, n
    return picked * frame_rate / len(x)


@pytest.mark.parametrize("sound", [clicks(100), chord(60, 64, 67), 0.1 * RNG.normal(size=96000)])
def test_level_timbre_attacks_and_tempo_equal_librosas(sound):
    sound, n_fft = sound.astype(np.float32), measures.frame_length(RATE)
    side_by_side = {"n_fft": n_fft, "hop_length": n_fft}
    spectrum = np.abs(librosa.stft(sound, **side_by_side))
    levels = librosa.feature.rms(y=sound, frame_length=n_fft, hop_length=n_fft)[0]
    heard = 20 * np.log10(levels) > 20 * np.log10(levels.max()) - 60
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some of the 128 mel bands are empty
        onsets = librosa.onset.onset_strength(
            y=sound, sr=RATE, n_fft=n_fft, hop_length=n_fft // 4, fmax=RATE / 2
        )
    found = describe(sound)
    centroids = librosa.feature.spectral_centroid(S=spectrum, sr=RATE)[0][heard]
    assert found["brightness_hz"] == pytest.approx(centroids.mean(), rel=1e-3)
    flatness = librosa.feature.spectral_flatness(S=spectrum)[0][heard]
    assert found["noisiness"] == pytest.approx(flatness.mean(), rel=1e-2, abs=1e-5)
    power = np.mean(levels[heard] ** 2)
    assert found["loudness_db"] == pytest.approx(10 * np.log10(power), abs=0.01)
    low, high = np.percentile(20 * np.log10(levels[heard]), (10, 95))
    assert found["loudness_range_db"] == pytest.approx(high - low, abs=0.01)
    assert found["attacks_per_second"] == pytest.approx(attacks_by_definition(onsets), abs=0.1)
    chroma = librosa.feature.chroma_stft(S=spectrum**2, sr=RATE, tuning=0)[:, heard].mean(axis=1)
    assert found["key_confidence"] == pytest.approx(
        max(
            np.corrcoef(chroma, np.roll(mode, tonic))[0, 1]
            for mode in (descriptors.MAJOR, descriptors.MINOR)
            for tonic in range(12)
        ),
        abs=1e-3,
    )


@pytest.mark.parametrize("bpm", [72, 96, 120, 132, 168])
def test_the_tempo_of_a_beat_is_found_as_librosa_finds_it(bpm):
    sound = clicks(bpm).astype(np.float32)
    found = describe(sound)
    assert found["tempo_bpm"] == pytest.approx(bpm, rel=0.02)
    assert found["tempo_confidence"] > 0.5
    n_fft = measures.frame_length(RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onsets = librosa.onset.onset_strength(
            y=sound, sr=RATE, n_fft=n_fft, hop_length=n_fft // 4, fmax=RATE / 2
        )
    (theirs,) = librosa.feature.tempo(onset_envelope=onsets, sr=RATE, hop_length=n_fft // 4)
    assert found["tempo_bpm"] == pytest.approx(theirs, rel=0.05)  # theirs is a whole lag
    noise = describe(0.1 * RNG.normal(size=len(sound)))
    assert noise["tempo_confidence"] < found["tempo_confidence"] / 2


def test_windows_spread_over_a_track_tell_the_same_tempo():
    windows = np.stack([clicks(132, 3.0) for _ in range(4)])
    found = describe(windows, excerpt="spread", num_windows=4)
    assert found["tempo_bpm"] == pytest.approx(132, rel=0.03)


@pytest.mark.parametrize(
    ("root", "third", "key", "mode"),
    [(60, 4, "C", "major"), (57, 3, "A", "minor"), (54, 4, "F#", "major"), (63, 3, "D#", "minor")],
)
def test_the_key_of_triads_is_found_with_its_mode(root, third, key, mode):
    found = describe(cadence(root, third))
    assert (found["key"], found["mode"]) == (key, mode)
    noise = describe(0.1 * RNG.normal(size=len(TIME)))
    assert found["key_confidence"] > noise["key_confidence"] + 0.2


def test_noise_is_noisier_and_brighter_than_a_tone_and_gain_changes_the_level_alone():
    tone = np.sin(2 * np.pi * 440 * TIME)
    noise = describe(0.1 * RNG.normal(size=len(TIME)))
    loud, soft = describe(0.5 * tone), describe(0.05 * tone)
    assert noise["noisiness"] > 0.4 > 0.01 > loud["noisiness"]
    assert loud["brightness_hz"] == pytest.approx(440, rel=0.05)
    assert noise["brightness_hz"] == pytest.approx(RATE / 4, rel=0.05)
    assert loud["loudness_db"] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.1)
    assert loud["loudness_db"] - soft["loudness_db"] == pytest.approx(20, abs=0.1)


def test_silence_before_a_sound_changes_nothing_but_time_and_silence_alone_is_missing():
    sound = chord(60, 64, 67)[: 6 * RATE]
    alone, after = describe(sound), describe(np.concatenate([np.zeros(6 * RATE), sound]))
    for name in ("loudness_db", "brightness_hz", "loudness_range_db"):
        assert after[name] == pytest.approx(alone[name], rel=0.05)
    assert (after["key"], after["mode"]) == (alone["key"], alone["mode"])
    silence = descriptors.to_json(describe(np.zeros(12 * RATE)))
    assert silence == [None] * len(descriptors.NAMES)


def test_the_feature_is_the_same_with_and_without_descriptors():
    sound = chord(60, 64).astype(np.float32)
    for settings in ({}, {"n_fft": 1024, "hop_length": 256, "n_mels": 128}):  # as descriptors are
        for name in ("mfcc", "mfcc_frames", "logmelspec"):
            ours, theirs = (
                spectral.audio_feature(feature(name=name, descriptors=flag, **settings))(sound)
                for flag in (True, False)
            )
            np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_descriptors_lie_beside_the_records_which_are_the_same_without_them(tmp_path):
    collection = write_collection(tmp_path / "music", 4)
    tracks, settings = manifest.read(collection), feature(duration=1.0, shard_size=2)
    for name, flag in (("with", True), ("without", False)):
        settings.descriptors, directory = flag, tmp_path / name / "records"
        extract.extract(tracks, settings.to_dict(), directory, here=True)
        extract.write_descriptors(tmp_path / f"{name}.csv", directory)
    assert not (tmp_path / "without.csv").exists()
    rows = files.read_csv(tmp_path / "with.csv")
    assert [*rows[0]] == ["id", *descriptors.NAMES]
    assert [row["id"] for row in rows] == tracks.ids
    assert float(rows[0]["noisiness"]) > float(rows[1]["noisiness"])  # noise, and a tone
    for shard in (tmp_path / "with").rglob("*.tfrecord-*"):
        assert shard.read_bytes() == (tmp_path / "without/records" / shard.name).read_bytes()


def test_rows_that_move_to_another_shard_keep_their_descriptors(tmp_path):
    collection = write_collection(tmp_path / "music", 4)
    settings = feature(duration=1.0, shard_size=2).to_dict()
    extract.extract(manifest.read(collection), settings, tmp_path / "records", here=True)
    extract.write_descriptors(tmp_path / "before.csv", tmp_path / "records")
    rows = files.read_csv(collection)
    files.write_csv(collection, list(rows[0]), rows[1:])
    extract.extract(manifest.read(collection), settings, tmp_path / "records", here=True)
    extract.write_descriptors(tmp_path / "after.csv", tmp_path / "records")
    before, after = (files.read_csv(tmp_path / f"{name}.csv") for name in ("before", "after"))
    assert after == before[1:]


def test_records_of_an_earlier_version_are_kept_without_descriptors(tmp_path):
    collection = write_collection(tmp_path / "music", 2)
    settings = feature(duration=1.0).to_dict()
    tracks, directory = manifest.read(collection), tmp_path / "records"
    extract.extract(tracks, settings, directory, here=True)
    (marker,) = directory.glob("shard-*.json")
    content = files.read_sealed_json(marker)
    del content["descriptors"]
    files.write_sealed_json(marker, content)
    changed, _ = extract.extract(tracks, settings, directory, here=True)
    assert not changed
    extract.write_descriptors(tmp_path / "descriptors.csv", directory)
    assert not (tmp_path / "descriptors.csv").exists()
