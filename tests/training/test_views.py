import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.config import get_config, to_dict
from vae_jax.errors import UserError
from vae_jax.records.statistics import ArraySpec, Statistics
from vae_jax.training import views

FRAMES = {"features": ArraySpec((None, 2), "float16")}
VECTORS = {"features": ArraySpec((3,), "float32")}
HYBRID = {
    "audio": ArraySpec((4,), "float32"),
    "lyrics": ArraySpec((16,), "float32"),
    "has_audio": ArraySpec((), "uint8"),
    "has_lyrics": ArraySpec((), "uint8"),
}


def view_of(arrays, num_classes=0, lyrics_weight=1.0, **model):
    config = to_dict(get_config())
    config["model"] |= {"segment_frames": 4} | model
    config["feature"]["lyrics_weight"] = lyrics_weight
    statistics = {
        name: Statistics.of(np.array([[-1.0] * spec.shape[-1], [1.0] * spec.shape[-1]]))
        for name, spec in arrays.items()
        if spec.shape
    }
    return views.build(config, arrays, statistics, num_classes)


def tracks_of_frames(*lengths):
    """Frame t of track i is (100 i + t, -t)."""
    longest = max(lengths)
    x = np.zeros((len(lengths), longest, 2), np.float16)
    for i, length in enumerate(lengths):
        x[i, :length] = [(100 * i + t, -t) for t in range(length)]
    return {"features": jnp.array(x), "num_frames": jnp.array(lengths)}


def test_vectors_are_standardised():
    x = np.random.default_rng(0).normal(50, 7, (100, 3)).astype(np.float32)
    view = views.build(to_dict(get_config()), VECTORS, {"features": Statistics.of(x)}, 0)
    seen = np.asarray(view.whole({"features": jnp.array(x)}).x)
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std(axis=0), 1, rtol=1e-5)
    assert view.input_shape == (3,)


def test_a_random_segment_is_consecutive_frames_of_its_track():
    view = view_of(FRAMES, name="conv2d")
    tracks = tracks_of_frames(9, 30)
    starts = set()
    for seed in range(50):
        x = np.asarray(view.sample(tracks, jax.random.key(seed)).x)
        assert x.shape == (2, 4, 2)
        assert (np.diff(x[:, :, 0]) == 1).all()
        assert x[0, -1, 0] <= 8
        assert 100 <= x[1, 0, 0] <= 126
        starts.add(int(x[0, 0, 0]))
    assert starts == {0, 1, 2, 3, 4, 5}


def test_a_track_shorter_than_a_segment_is_repeated():
    view = view_of(FRAMES, name="conv2d")
    x = np.asarray(view.sample(tracks_of_frames(3, 9), jax.random.key(0)).x)
    assert x[0, :, 0].tolist() == [0, 1, 2, 0]


def test_all_segments_lie_side_by_side_and_padding_is_masked():
    view = view_of(FRAMES, name="conv2d")
    inputs = view.whole(tracks_of_frames(3, 9, 13))
    assert inputs.x.shape == (3, 3, 4, 2)
    assert np.asarray(inputs.mask).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert np.asarray(inputs.x[2, :, 0, 0]).tolist() == [200, 204, 208]


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_early_fusion_weighs_modalities_and_not_columns(weight):
    view = view_of(HYBRID, name="mlp", lyrics_weight=weight)
    tracks = {
        "audio": jnp.ones((3, 4)),
        "lyrics": jnp.ones((3, 16)),
        "has_audio": jnp.array([1, 0, 1]),
        "has_lyrics": jnp.array([1, 1, 0]),
    }
    x = np.asarray(view.whole(tracks).x)
    assert view.input_shape == (20,)
    energy = (x**2).sum(axis=1)
    np.testing.assert_allclose(energy, [4 * (1 + weight**2), 4 * weight**2, 4], rtol=1e-5)


def test_the_multimodal_view_keeps_modalities_apart_and_says_which_there_are():
    view = view_of(HYBRID, name="multimodal")
    tracks = {
        "audio": jnp.ones((2, 4)),
        "lyrics": jnp.ones((2, 16)),
        "has_audio": jnp.array([1, 0], jnp.uint8),
        "has_lyrics": jnp.array([1, 1], jnp.uint8),
    }
    inputs = view.sample(tracks, jax.random.key(0))
    assert view.input_shape == {"audio": (4,), "lyrics": (16,)}
    assert inputs.mask["audio"].tolist() == [1, 0]
    assert inputs.x["lyrics"].shape == (2, 16)


def test_an_unknown_class_is_a_zero_vector():
    view = view_of(VECTORS, num_classes=2)
    tracks = {"features": jnp.zeros((3, 3)), "condition": jnp.array([1, 0, -1])}
    assert view.whole(tracks).condition.tolist() == [[0, 1], [1, 0], [0, 0]]


@pytest.mark.parametrize(("model", "arrays"), [("mlp", FRAMES), ("conv2d", VECTORS)])
def test_a_model_that_cannot_see_the_features_is_a_user_error(model, arrays):
    with pytest.raises(UserError, match=rf"config\.model\.name={model} needs"):
        view_of(arrays, name=model)
