from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tests.models.compiled import apply, init
from vae_jax.config import get_config, to_dict
from vae_jax.embedding import decode
from vae_jax.features.spectral import SpectralSpec, mel_filters
from vae_jax.models.vae import Inputs
from vae_jax.records.reader import Records
from vae_jax.records.statistics import ArraySpec, Statistics
from vae_jax.training import track_view
from vae_jax.training.model_spec import ModelSpec

RNG = np.random.default_rng(0)
SPECS = {
    "mfcc": {"features": ArraySpec((6,), "float32")},
    "logmelspec": {"features": ArraySpec((None, 8), "float16")},
    "hybrid": {
        "audio": ArraySpec((6,), "float32"),
        "lyrics": ArraySpec((3,), "float32", isotropic=True),
        "has_audio": ArraySpec((), "uint8"),
        "has_lyrics": ArraySpec((), "uint8"),
    },
}


class Tracks(Records):
    """Stands in for records: `num_tracks` tracks with arrays in units far from standardised."""

    def __init__(self, arrays, num_tracks, without_audio=()):
        self.arrays = arrays
        self.ids = np.array([f"t{i}" for i in range(num_tracks)])
        frames = any(spec.shape[:1] == (None,) for spec in arrays.values())
        self.num_frames = RNG.integers(3, 20, num_tracks).astype(np.int32) * frames
        self._records = [self._make(i, i in without_audio) for i in range(num_tracks)]
        self.statistics = {
            name: Statistics.of(
                np.concatenate([np.atleast_2d(record[name]) for record in self._records]),
                spec.isotropic,
            )
            for name, spec in arrays.items()
            if spec.shape
        }

    @property
    def lyrics(self):
        return None

    def _make(self, i, without_audio):
        record = {}
        for name, spec in self.arrays.items():
            shape = [size or self.num_frames[i] for size in spec.shape]
            values = RNG.normal(-40, 10, size=shape) + np.arange(shape[-1] if shape else 1)
            record[name] = values.astype(spec.dtype) if shape else np.array(1, np.uint8)
        if without_audio:
            record |= {"has_audio": np.array(0, np.uint8), "audio": 0 * record["audio"]}
        return record

    def load(self, positions):
        rows = [self._records[position] for position in positions]
        arrays = {name: [row[name] for row in rows] for name in self.arrays}
        is_frames = {name: None in spec.shape for name, spec in self.arrays.items()}
        return {name: x if is_frames[name] else np.stack(x) for name, x in arrays.items()}


def encoder_of(tracks, feature, model, conditions=(), **settings):
    """Return what `decode` needs of an encoder, with random parameters."""
    config = to_dict(get_config())
    config["feature"] |= {"name": feature, "n_mels": 8}
    config["model"] |= {"name": model, "latent_dim": 3, "segment_frames": 4, "hidden_dims": [5]}
    config["model"] |= {"channels": [4, 4]} | settings
    model_spec = ModelSpec.of(config, tracks, conditions)
    network, view = model_spec.build()
    numbers = model_spec.class_numbers(conditions)
    source = decode.Source(tracks, numbers)
    first = np.zeros(1, np.int32)
    seen = view.sample(source.load(first) | {"position": first}, jax.random.key(0))
    variables = init(network, jax.random.key(1), seen, jax.random.key(2))
    return SimpleNamespace(model_spec=model_spec, best_params=variables["params"])


def latents_of(tracks, num_blocks=1):
    means = RNG.normal(size=(len(tracks), 3)) * [0.1, 3.0, 1.0] + [5.0, 6.0, 7.0]
    return [np.tile(means, num_blocks).astype(np.float32)]


@pytest.mark.parametrize(
    ("feature", "model", "settings"),
    [
        ("mfcc", "mlp", {}),
        ("logmelspec", "conv2d", {}),
        ("hybrid", "multimodal", {}),
        ("hybrid", "mlp", {}),
        ("mfcc", "mlp", {"condition": "genre"}),
    ],
)
def test_inputs_are_in_stored_units_and_outputs_are_the_models(feature, model, settings):
    tracks = Tracks(SPECS[feature], 20)
    conditions = ["a", "b"] * 10 if settings else []
    encoder = encoder_of(tracks, feature, model, conditions, **settings)
    latents = latents_of(tracks, 2 if model == "multimodal" else 1)
    data = decode.decode(encoder, tracks, conditions, latents)
    assert data.dimensions.max() < 3  # those of the audio
    assert data.ids.tolist() == [f"t{i}" for i in (0, 2, 5, 7, 10, 12, 15, 17)]
    name = "audio" if feature == "hybrid" else "features"
    for i, id_ in enumerate(data.ids):
        stored = tracks.load([int(id_[1:])])[name][0].astype(np.float32)
        if feature == "logmelspec":
            first = 4 * ((max(len(stored) // 4, 1) - 1) // 2)
            stored = stored[(first + np.arange(4)) % len(stored)]  # repeated if too short
        np.testing.assert_allclose(data.inputs[i], stored, atol=1e-3)
    assert data.outputs.shape == data.inputs.shape
    statistics = tracks.statistics[name]
    np.testing.assert_allclose(data.center, statistics.mean, rtol=1e-5)
    np.testing.assert_allclose(data.scale, statistics.std, rtol=1e-5)


def test_the_outputs_equal_an_encoding_and_decoding_by_hand():
    tracks = Tracks(SPECS["mfcc"], 20)
    encoder = encoder_of(tracks, "mfcc", "mlp")
    data = decode.decode(encoder, tracks, [], latents_of(tracks))
    model, _ = encoder.model_spec.build()
    variables = {"params": encoder.best_params}
    x = (data.inputs - data.center) / data.scale
    z = apply(model, variables, Inputs(x), method="encode").mean
    outputs = apply(model, variables, z, method="decode").mean
    np.testing.assert_allclose(data.outputs, outputs * data.scale + data.center, rtol=1e-4)


def test_traversals_move_the_latents_that_vary_most_around_the_mean_of_all_tracks():
    tracks = Tracks(SPECS["mfcc"], 20)
    encoder, latents = encoder_of(tracks, "mfcc", "mlp"), latents_of(tracks)
    data = decode.decode(encoder, tracks, [], latents)
    assert data.dimensions.tolist() == [1, 2, 0]
    mean, std = latents[0].mean(axis=0), latents[0].std(axis=0)
    expected = mean[1] + std[1] * np.linspace(-2, 2, 7)
    np.testing.assert_allclose(data.values[0], expected, rtol=1e-5)
    z = np.tile(mean, (7, 1))
    z[:, 1] = expected
    model, _ = encoder.model_spec.build()
    decoded = apply(model, {"params": encoder.best_params}, z, method="decode").mean
    np.testing.assert_allclose(data.traversals[0], decoded * data.scale + data.center, rtol=1e-4)


def test_only_tracks_with_audio_are_reconstructed():
    tracks = Tracks(SPECS["hybrid"], 16, without_audio={0, 4, 5})
    encoder = encoder_of(tracks, "hybrid", "multimodal")
    data = decode.decode(encoder, tracks, [], latents_of(tracks, 2))
    assert data.ids.tolist() == ["t1", "t2", "t6", "t8", "t10", "t12", "t14"]
    without = Tracks(SPECS["hybrid"], 4, without_audio=range(4))
    assert decode.decode(encoder, without, [], latents_of(without, 2)) is None


@pytest.mark.slow
def test_a_model_that_does_not_decode_to_stored_features_is_left_out():
    tracks = Tracks(SPECS["logmelspec"], 8)
    encoder = encoder_of(tracks, "logmelspec", "track")
    assert isinstance(encoder.model_spec.build()[1], track_view.TrackView)
    assert decode.decode(encoder, tracks, [], latents_of(tracks)) is None


@pytest.mark.parametrize("num_tracks", [1, 3])
def test_a_few_tracks_are_enough(num_tracks):
    tracks = Tracks(SPECS["logmelspec"], num_tracks)
    encoder = encoder_of(tracks, "logmelspec", "conv2d")
    data = decode.decode(encoder, tracks, [], latents_of(tracks))
    assert data.inputs.shape == (num_tracks, 4, 8)
    assert data.traversals.shape == (3, 7, 4, 8)


def test_the_axes_of_spectrograms_are_in_seconds_and_hz():
    tracks = Tracks(SPECS["logmelspec"], 8)
    data = decode.decode(encoder_of(tracks, "logmelspec", "conv2d"), tracks, [], latents_of(tracks))
    assert data.hop_seconds == 512 / 22050
    feature = to_dict(get_config())["feature"] | {"n_mels": 8}
    bins = np.arange(1025) * 22050 / 2048
    peaks = bins[mel_filters(SpectralSpec.of(feature)).argmax(axis=1)]
    np.testing.assert_allclose(data.mel_frequencies, peaks, atol=22050 / 2048)


def test_frames_of_mfcc_have_no_frequencies():
    tracks = Tracks(SPECS["logmelspec"], 8)
    encoder = encoder_of(tracks, "mfcc_frames", "conv2d")
    data = decode.decode(encoder, tracks, [], latents_of(tracks))
    assert (data.hop_seconds, data.mel_frequencies) == (512 / 22050, None)
