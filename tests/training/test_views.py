import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.config import get_config, to_dict
from vae_jax.errors import UserError
from vae_jax.records.statistics import ArraySpec, Statistics
from vae_jax.training import track_view, views
from vae_jax.training.whitening import Whitening

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


@pytest.mark.parametrize(
    ("model", "arrays"), [("mlp", FRAMES), ("conv2d", VECTORS), ("track", VECTORS)]
)
def test_a_model_that_cannot_see_the_features_is_a_user_error(model, arrays):
    with pytest.raises(UserError, match=rf"config\.model\.name={model} needs"):
        view_of(arrays, name=model)


WINDOWS = {"features": ArraySpec((None, 2), "float16", window=10)}  # two segments, and two frames


def test_no_segment_straddles_two_windows():
    tracks = tracks_of_frames(30, 10, 3)
    conv = view_of(WINDOWS, name="conv2d")
    whole = conv.whole(tracks)
    assert np.asarray(whole.x[0, :, 0, 0]).tolist() == [0, 4, 10, 14, 20, 24]
    assert np.asarray(whole.mask.sum(axis=1)).tolist() == [6, 2, 1]
    starts = set()
    for seed in range(200):
        x = np.asarray(conv.sample(tracks, jax.random.key(seed)).x)
        assert (np.diff(x[:2, :, 0]) == 1).all()
        starts.add(int(x[0, 0, 0]))
    assert starts == {w + first for w in (0, 10, 20) for first in range(7)}


@pytest.mark.parametrize("is_resident", [False, True])
def test_the_track_vae_sees_segments_of_all_windows_and_never_a_seam(is_resident):
    config = to_dict(get_config())
    config["model"] |= {"name": "track", "segment_frames": 4, "num_segments": 6, "input_noise": 0.0}
    size = np.asarray(track_view.describe(jnp.zeros((4, 2)))).shape[-1]
    statistics = {"features": Statistics.of(np.array([[-1.0, -1], [1, 1]]))}
    statistics["description"] = Statistics.of(np.array([[-1.0] * size, [1.0] * size]))
    whitening = Whitening(np.eye(size, dtype=np.float32), np.ones(size, np.float32))
    view = views.build(config, WINDOWS, statistics, 0, whitening)
    tracks = tracks_of_frames(30, 10)
    means = {w + first + 1.5 for w in (0, 10, 20) for first in range(7)}  # of four frames in a row
    seen = view.precompute(tracks) if is_resident else tracks
    assert np.asarray(view.whole(seen).x["description"][0, :, 0]).tolist() == [
        *(1.5, 5.5, 11.5, 15.5, 21.5, 25.5)
    ]
    sampled, counts = set(), set()
    for seed in range(100):
        inputs = view.sample(seen, jax.random.key(seed))
        mask = np.asarray(inputs.mask[0], bool)
        sampled |= set(np.asarray(inputs.x["description"][0, mask, 0]).tolist())
        counts.add(int(mask.sum()))
    assert sampled == means
    assert counts == {3, 6}
