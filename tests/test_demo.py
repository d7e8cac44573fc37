import subprocess
import sys
from collections import Counter

import librosa
import numpy as np
import pytest
import soundfile
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from vae_jax import demo, manifest
from vae_jax.errors import UserError


def synthesise(directory, num_tracks=6, duration=0.5, **options):
    return demo.synthesise(directory, num_tracks=num_tracks, duration=duration, **options)


def content(directory):
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def modified(directory):
    return {path.name: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """48 tracks of 4 s: the folder, and the waveforms as float64 [track, sample]."""
    folder = tmp_path_factory.mktemp("demo")
    tracks = manifest.read(synthesise(folder, num_tracks=48, duration=4.0))
    return folder, np.stack([soundfile.read(track.audio_path)[0] for track in tracks])


def test_the_manifest_reader_accepts_the_metadata(collection):
    folder, _ = collection
    found = manifest.read(folder / "metadata.csv", requires=("audio_path", "lyrics", "label"))
    assert len(found) == 48
    for track in found:
        assert track.audio_path.exists()
        assert track.lyrics
        assert all(track.columns[name] for name in ("language", "genre", "label", "artist"))


def test_style_and_language_and_artist_occur_in_all_combinations_and_equal_proportions(tmp_path):
    tracks = manifest.read(synthesise(tmp_path, num_tracks=72, duration=0.1))
    columns = [track.columns for track in tracks]
    combinations = Counter((row["label"], row["artist"], row["language"]) for row in columns)
    assert len(combinations) == 6 * 4 * 3
    assert set(combinations.values()) == {1}


def test_tracks_are_mono_16_bit_wav_of_the_asked_length(collection):
    for path in (collection[0] / "audio").iterdir():
        info = soundfile.info(path)
        assert (info.format, info.subtype, info.channels) == ("WAV", "PCM_16", 1)
        assert (info.samplerate, info.frames) == (22050, 88200)


def test_no_track_clips_or_is_silent(collection):
    peaks = np.abs(collection[1]).max(axis=1)
    assert peaks.max() < 0.95
    assert peaks.min() > 0.1
    assert np.sqrt(np.mean(collection[1] ** 2, axis=1)).min() > 0.01


def test_styles_are_separable_by_ear_but_not_trivially(collection):
    folder, waves = collection
    styles = [track.columns["label"] for track in manifest.read(folder / "metadata.csv")]
    coefficients = librosa.feature.mfcc(y=waves.astype(np.float32), sr=22050)
    features = coefficients.mean(axis=-1)
    clusters = KMeans(6, n_init=10, random_state=0).fit_predict(features / features.std(axis=0))
    assert 0.15 < adjusted_rand_score(styles, clusters) < 0.9


def test_the_lyrics_of_a_language_come_from_its_own_words(collection):
    tracks = manifest.read(collection[0] / "metadata.csv")
    words = {language: set() for language in ("en", "de", "es")}
    for track in tracks:
        words[track.columns["language"]] |= set(track.lyrics.split())
    assert {"the", "[Chorus]"} <= words["en"]
    assert {"der", "[Refrain]"} <= words["de"]
    assert {"el", "[Coro]"} <= words["es"]
    assert not words["en"] & words["de"]


def test_a_seed_gives_the_same_bytes_everywhere_and_another_seed_other_tracks(tmp_path):
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    synthesise(first, seed=3)
    synthesise(second, seed=3)
    synthesise(other, seed=4)
    assert content(first) == content(second)
    assert all(content(first)[name] != data for name, data in content(other).items())


def test_a_second_run_writes_nothing(tmp_path):
    synthesise(tmp_path)
    before = modified(tmp_path)
    synthesise(tmp_path)
    assert modified(tmp_path) == before


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"duration": 1.0}, {"num_tracks": 7}, {"sample_rate": 16000}]
)
def test_changed_settings_redo_the_collection(tmp_path, change):
    synthesise(tmp_path)
    synthesise(tmp_path, **change)
    synthesise(tmp_path / "fresh", **change)
    assert (tmp_path / "metadata.csv").read_bytes() == (
        tmp_path / "fresh" / "metadata.csv"
    ).read_bytes()
    for path in (tmp_path / "fresh" / "audio").iterdir():
        assert (tmp_path / "audio" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_missing_or_truncated_track_is_made_again(tmp_path, damage):
    synthesise(tmp_path)
    before = content(tmp_path)
    path = tmp_path / "audio" / "demo-002.wav"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:1000])
    synthesise(tmp_path)
    assert content(tmp_path) == before


def test_a_killed_run_leaves_no_manifest_and_the_next_run_completes_it(tmp_path, monkeypatch):
    synthesise(tmp_path / "whole", seed=1)
    synthesise(tmp_path / "killed", seed=0)
    write, calls = soundfile.write, []

    def killed(*args, **options):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(write(*args, **options))

    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            synthesise(tmp_path / "killed", seed=1)
    assert not (tmp_path / "killed" / "metadata.csv").exists()
    synthesise(tmp_path / "killed", seed=1)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.parametrize("sample_rate", [8000, 96000])
def test_any_sample_rate_works(tmp_path, sample_rate):
    synthesise(tmp_path, sample_rate=sample_rate)
    assert soundfile.info(tmp_path / "audio" / "demo-005.wav").samplerate == sample_rate


def test_a_manifest_that_is_not_the_demos_is_never_overwritten(tmp_path):
    metadata = tmp_path / "metadata.csv"
    metadata.write_text("id,audio_path\nmine,mine.wav\n")
    with pytest.raises(UserError, match=r"metadata\.csv is not a demo's manifest"):
        synthesise(tmp_path)
    assert list(tmp_path.iterdir()) == [metadata]


def test_the_command_ends_with_one_sentence_where_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("in the way")
    command = [sys.executable, "-m", "vae_jax.demo", f"--outdir={tmp_path}/file"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
