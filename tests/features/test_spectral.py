import dataclasses
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import librosa
import numpy as np
import pytest

from tests.audio_files import music
from vae_jax.config import get_config
from vae_jax.features import audio, spectral
from vae_jax.features.spectral import SpectralSpec

SHARED = Path(__file__).parents[3] / "shared" / "data"
DECIBELS = 1e-3  # how far from librosa, which computes its spectra in float64


def feature_config(**values):
    feature = get_config().feature
    feature.duration = 3.0
    feature.update(values)
    return feature


def padded(waveform, length):
    return np.pad(waveform, (0, length - len(waveform)))


def librosa_log_mel(waveform, spec):
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        win_length=spec.win_length,
        hop_length=spec.hop_length,
        n_mels=spec.n_mels,
        fmin=spec.fmin,
        fmax=spec.fmax,
    )
    return librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=80).T


SETTINGS = [
    {},
    {"win_length": 1200},
    {"hop_length": 441, "n_fft": 1024, "n_mels": 64},
    {"hop_length": 3000},
    {"hop_length": 100_000},
    {"n_fft": 1023, "hop_length": 315},  # 3 s are 210 hops, but an odd window fits 210 times
    {"n_mels": 40, "fmin": 300.0, "fmax": 8000.0},
    {"sample_rate": 16000, "n_fft": 400, "hop_length": 160, "n_mels": 80, "n_mfcc": 13},
    {"sample_rate": 44100, "n_fft": 4096, "n_mels": 250, "n_mfcc": 250},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("seconds", [3.0, 1.3])
def test_log_mel_and_mfcc_equal_librosas_whatever_the_padding(settings, seconds):
    spec = SpectralSpec.of(feature_config(**settings))
    waveform = music(seconds, spec.sample_rate)[:, 0]
    expected = librosa_log_mel(waveform, spec)
    num_frames = spec.num_frames(len(waveform))
    samples = padded(waveform, 3 * spec.sample_rate)
    assert num_frames == len(expected)

    actual = spectral.log_mel(samples, len(waveform), spec)
    assert actual.shape == (spec.num_frames(len(samples)), spec.n_mels)
    np.testing.assert_allclose(actual[:num_frames], expected, atol=DECIBELS, rtol=0)

    expected = librosa.feature.mfcc(S=expected.T, n_mfcc=spec.n_mfcc).T
    actual = spectral.mfcc(samples, len(waveform), spec)[:num_frames]
    np.testing.assert_allclose(actual, expected, atol=2 * DECIBELS, rtol=0)


def test_mfcc_equals_librosas_from_the_waveform():
    spec = SpectralSpec.of(feature_config())
    waveform = music(3.0)[:, 0]
    expected = librosa.feature.mfcc(y=waveform, sr=22050).T
    actual = spectral.mfcc(waveform, len(waveform), spec)
    np.testing.assert_allclose(actual, expected, atol=2 * DECIBELS, rtol=0)


@pytest.mark.parametrize("num_samples", [1, 100, 511, 512, 2048])
def test_waveforms_shorter_than_a_window_equal_librosas(num_samples):
    spec = SpectralSpec.of(feature_config())
    waveform = music(1.0)[:num_samples, 0] + np.float32(0.1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=")
        expected = librosa_log_mel(waveform, spec)
    actual = spectral.log_mel(padded(waveform, 22050), num_samples, spec)
    np.testing.assert_allclose(actual[: len(expected)], expected, atol=DECIBELS, rtol=0)


def test_the_maximum_is_taken_over_the_real_frames_alone():
    spec = SpectralSpec.of(feature_config())
    waveform = 1e-4 * music(2.0)[: 44 * 512 - 1, 0]
    waveform[-1] = 1  # loudest in frame 44, the first after the end
    expected = librosa_log_mel(waveform, spec)
    actual = spectral.log_mel(padded(waveform, 3 * 22050), len(waveform), spec)
    assert actual.max() > expected.max() + 1
    np.testing.assert_allclose(actual[: len(expected)], expected, atol=DECIBELS, rtol=0)


def test_silence_is_finite():
    spec = SpectralSpec.of(feature_config())
    silence = np.zeros(22050, np.float32)
    np.testing.assert_array_equal(spectral.log_mel(silence, 22050, spec), -100)
    summary = spectral.mfcc_summary(silence, 22050, spec, deltas=True)
    np.testing.assert_allclose(summary[1:], 0, atol=1e-3)


def test_a_batch_equals_its_clips_one_by_one():
    spec = SpectralSpec.of(feature_config())
    lengths = np.array([22050, 7000, 1])
    batch = np.stack([padded(music(1.0, seed=n)[:n, 0], 22050) for n in lengths])
    for function in (spectral.log_mel, spectral.mfcc):
        together = function(batch, lengths, spec)
        for waveform, length, clip in zip(batch, lengths, together, strict=True):
            alone = function(waveform, length, spec)
            np.testing.assert_allclose(clip, alone, rtol=1e-5, atol=DECIBELS)


def test_whole_batches_on_an_accelerator_give_the_same(monkeypatch):
    spec = SpectralSpec.of(feature_config())
    batch = music(1.0, channels=3).T
    on_cpu = spectral.mfcc(batch, np.full(3, 22050), spec)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    np.testing.assert_allclose(spectral.mfcc(batch, np.full(3, 22050), spec), on_cpu, atol=1e-3)
    jax.clear_caches()


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize(
    "settings", [{}, {"n_mels": 256, "n_fft": 512}, {"fmin": 50.0, "fmax": 900.0}], ids=str
)
def test_mel_filters_equal_librosas(settings):
    spec = SpectralSpec.of(feature_config(**settings))
    expected = librosa.filters.mel(
        sr=spec.sample_rate, n_fft=spec.n_fft, n_mels=spec.n_mels, fmin=spec.fmin, fmax=spec.fmax
    )
    np.testing.assert_allclose(spectral.mel_filters(spec), expected, atol=1e-7)


@pytest.mark.parametrize("deltas", [False, True])
def test_the_summary_is_mean_and_standard_deviation_over_the_real_frames(deltas):
    frames = np.random.default_rng(0).normal(-400, 0.01, size=(1000, 4)).astype(np.float32)
    expected = np.float64(frames[:700])
    parts = [expected.mean(axis=0), expected.std(axis=0)]
    if deltas:
        difference = np.diff(expected, axis=0)
        parts += [difference.mean(axis=0), difference.std(axis=0)]
    frames[700:] = np.nan
    actual = spectral.summary(frames, 700, deltas=deltas)
    assert actual.shape == (16 if deltas else 8,)
    np.testing.assert_allclose(actual[:4], parts[0], rtol=1e-6)
    np.testing.assert_allclose(actual[4:], np.concatenate(parts[1:]), atol=1e-5)


def test_the_summary_of_one_frame_has_no_spread():
    frames = np.arange(6, dtype=np.float32).reshape(3, 2)
    actual = spectral.summary(frames, 1, deltas=True)
    np.testing.assert_array_equal(actual, [0, 1, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("name", ["mfcc", "mfcc_frames", "logmelspec"])
@pytest.mark.parametrize("deltas", [False, True])
def test_a_feature_has_the_shape_and_dtype_that_it_states(name, deltas):
    compute = spectral.audio_feature(feature_config(name=name, deltas=deltas))
    waveform = music(2.0)[:, 0]
    values = compute(waveform)
    num_frames = 1 + len(waveform) // 512
    assert values.shape == tuple(num_frames if size is None else size for size in compute.shape)
    assert values.dtype == compute.dtype
    assert (
        compute.shape
        == {
            "mfcc": (80 if deltas else 40,),
            "mfcc_frames": (None, 20),
            "logmelspec": (None, 128),
        }[name]
    )


def test_the_mfcc_feature_equals_librosas_mean_and_standard_deviation():
    waveform = music(2.0)[:, 0]
    expected = librosa.feature.mfcc(y=waveform, sr=22050)
    actual = spectral.audio_feature(feature_config())(waveform)
    expected = np.concatenate([expected.mean(axis=1), expected.std(axis=1)])
    np.testing.assert_allclose(actual, expected, atol=2 * DECIBELS)


def test_storing_decibels_as_float16_costs_a_64th_at_most():
    feature = feature_config(name="logmelspec")
    waveform = music(3.0)[:, 0]
    exact = np.asarray(spectral.log_mel(waveform, len(waveform), SpectralSpec.of(feature)))
    stored = spectral.audio_feature(feature)(waveform)
    assert np.abs(exact).max() < 64
    assert np.abs(stored - exact).max() <= 1 / 64


def test_the_longest_waveform_that_resampling_makes_fits():
    compute = spectral.audio_feature(feature_config(name="logmelspec", duration=0.1))
    assert len(compute(np.ones(2206, np.float32))) == 5
    with pytest.raises(ValueError, match="broadcast"):
        compute(np.ones(3000, np.float32))


def test_a_long_window_costs_short_tracks_nothing_and_changes_nothing(monkeypatch):
    waveform = music(2.0)[:, 0]
    whole = spectral.audio_feature(feature_config(name="logmelspec"))(waveform)
    hours = spectral.audio_feature(feature_config(name="logmelspec", duration=36000.0))
    lengths = []
    compute = dataclasses.replace(
        hours, compute=lambda padded, n: lengths.append(len(padded)) or hours.compute(padded, n)
    )
    np.testing.assert_array_equal(compute(waveform), whole)
    monkeypatch.setattr(spectral, "MIN_PADDED", 2**12)
    np.testing.assert_array_equal(compute(waveform), whole)
    assert lengths == [2**20, 2**16]


def test_threads_and_shards_share_one_compilation():
    compiled = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration)

    def work(seed):
        # Every shard makes its own feature object; tracks differ in length.
        compute = spectral.audio_feature(feature_config(duration=1.23))
        return compute(music(1.0, seed=seed)[: 20000 + seed, 0])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(work, range(16)))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) == 1
    np.testing.assert_array_equal(results[3], work(3))


@pytest.mark.parametrize("folder", ["jamendolyrics", "gtzan_mini"])
def test_features_of_real_music_equal_librosas(folder):
    paths = sorted((SHARED / folder / "audio").glob("*"))[:2]
    if not paths:
        pytest.skip(f"{SHARED / folder} is not there")
    feature = feature_config(duration=30.0)
    spec = SpectralSpec.of(feature)
    for path in paths:
        waveform = audio.load(
            path, sample_rate=22050, duration=30.0, excerpt="start", min_duration=0.5
        ).waveform
        expected = librosa_log_mel(waveform, spec)
        actual = spectral.log_mel(padded(waveform, 661501), len(waveform), spec)
        np.testing.assert_allclose(actual[: len(expected)], expected, atol=DECIBELS, rtol=0)


SPREAD = {"excerpt": "spread", "duration": 2.0, "num_windows": 4}


@pytest.mark.parametrize("num_windows", [1, 3, 4])
def test_frames_of_spread_windows_are_those_of_each_window_alone(num_windows):
    windows = music(0.5 * num_windows)[:, 0].reshape(num_windows, -1)
    for name in ("mfcc_frames", "logmelspec"):
        compute = spectral.audio_feature(feature_config(name=name, **SPREAD))
        alone = spectral.audio_feature(feature_config(name=name))
        expected = np.concatenate([alone(window) for window in windows])
        np.testing.assert_allclose(compute(windows), expected, atol=0.02)
        assert len(expected) == num_windows * compute.window_frames


@pytest.mark.parametrize("num_windows", [1, 3, 4])
def test_statistics_of_spread_windows_never_see_a_seam(num_windows):
    windows = music(0.5 * num_windows)[:, 0].reshape(num_windows, -1)
    frames = [librosa.feature.mfcc(y=window, sr=22050) for window in windows]
    values, changes = np.hstack(frames), np.hstack([np.diff(part) for part in frames])
    expected = [f(part, axis=1) for part in (values, changes) for f in (np.mean, np.std)]
    compute = spectral.audio_feature(feature_config(deltas=True, **SPREAD))
    np.testing.assert_allclose(compute(windows), np.concatenate(expected), atol=2 * DECIBELS)


def test_a_short_window_alone_is_described_as_the_waveform_that_it_is():
    waveform = music(0.3)[:, 0]
    for name in ("mfcc", "logmelspec"):
        expected = spectral.audio_feature(feature_config(name=name))(waveform)
        actual = spectral.audio_feature(feature_config(name=name, **SPREAD))(waveform[None])
        np.testing.assert_allclose(actual, expected, atol=1e-3)
