"""The latents of a hybrid show both modalities' structure, though half of the tracks lack one."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score

from benchmarks import modalities
from tests.models.compiled import apply, init
from vae_jax.config import get_config, to_dict
from vae_jax.models import build
from vae_jax.models.vae import Inputs, loss
from vae_jax.records.reader import Records
from vae_jax.records.statistics import ArraySpec, Statistics
from vae_jax.training import mixture
from vae_jax.training.model_spec import ModelSpec

NUM_TRACKS, NUM_STYLES = 120, 6


def tracks():
    """Return tracks of six styles in three languages, the styles, and the languages.

    Every other track lacks its lyrics. These have many more columns than the audio, and say little
    but the language.
    """
    rng = np.random.default_rng(0)
    style = rng.integers(0, NUM_STYLES, NUM_TRACKS)
    language = style % 3
    audio = rng.normal(0, 1.2, (NUM_STYLES, 12))[style] + rng.normal(0, 0.3, (NUM_TRACKS, 12))
    lyrics = rng.normal(0, 1, (3, 40))[language] + rng.normal(0, 1, (NUM_TRACKS, 40))
    has_lyrics = (np.arange(NUM_TRACKS) % 2).astype(np.float32)
    x = {"audio": jnp.array(audio), "lyrics": jnp.array(lyrics)}
    mask = {"audio": jnp.ones(NUM_TRACKS), "lyrics": jnp.array(has_lyrics)}
    return Inputs(x, mask), style, language


def songs_in_two_languages():
    """Return tracks whose lyrics have clusters, languages and topics, and the languages.

    The audio varies as much and has none: what a mixture cuts out of it says nothing.
    """
    rng = np.random.default_rng(0)
    language, topic = rng.integers(0, 2, NUM_TRACKS), rng.integers(0, 3, NUM_TRACKS)
    audio = rng.normal(size=(NUM_TRACKS, 4)) @ rng.normal(0, 1, (4, 12))
    lyrics = 2 * rng.normal(0, 1, (2, 40))[language] + rng.normal(0, 1, (3, 40))[topic]
    x = {"audio": audio, "lyrics": lyrics}
    x = {
        name: jnp.array(one - one.mean(axis=0) + rng.normal(0, 0.5, one.shape))
        for name, one in x.items()
    }
    return Inputs(x, dict.fromkeys(x, jnp.ones(NUM_TRACKS))), language


def train(module, inputs, num_steps=400, seed=0):
    """Return the variables of a model trained with N(0, I), whose mixture is then fitted."""
    optimizer, key = optax.adam(1e-2), jax.random.key(seed)
    params = init(module, key, inputs, key)["params"]

    def step(carry, i):
        params, state = carry

        def objective(params):
            terms = apply(module, {"params": params}, inputs, jax.random.fold_in(key, i))
            return loss(terms, jnp.ones(NUM_TRACKS), 1.0, 0.0)

        grads = jax.grad(objective)(params)
        grads["prior"] = jax.tree.map(jnp.zeros_like, grads["prior"])
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    steps = jnp.arange(num_steps)
    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, steps))(
        (params, optimizer.init(params))
    )
    posterior = apply(module, {"params": params}, inputs, method="encode")
    return {"params": params | {"prior": mixture.fit(posterior, NUM_STYLES, seed=seed)}}


def agreement(points, classes):
    k = len(np.unique(classes))
    found = KMeans(k, n_init=10, random_state=0).fit_predict(np.asarray(points))
    return adjusted_mutual_info_score(classes, found)


@pytest.mark.slow
def test_clusters_are_the_structure_of_either_modality_where_half_the_tracks_lack_one():
    config = to_dict(get_config())
    config["model"] |= {"name": "multimodal", "prior": "mixture", "num_components": NUM_STYLES}
    config["model"] |= {"latent_dim": 4, "hidden_dims": [], "learned_scale": False}
    inputs, style, language = tracks()
    module = build(config, {"audio": (12,), "lyrics": (40,)})
    variables = train(module, inputs)
    latents = apply(module, variables, inputs, method="encode").mean
    assert agreement(latents, style) > 0.9
    assert agreement(latents, language) > 0.9
    incomplete = apply(module, variables, inputs, method="infer").mean
    assert agreement(incomplete, language) < 0.8  # tracks without lyrics lie in the middle


@pytest.mark.parametrize("seed", range(3))
def test_no_seed_loses_clusters_to_a_modality_that_has_none(seed):
    config = to_dict(get_config())
    config["model"] |= {"name": "multimodal", "prior": "mixture", "num_components": NUM_STYLES}
    config["model"] |= {"latent_dim": 4, "hidden_dims": [], "learned_scale": False}
    inputs, language = songs_in_two_languages()
    module = build(config, {"audio": (12,), "lyrics": (40,)})
    variables = train(module, inputs, seed=seed)
    assert agreement(apply(module, variables, inputs, method="encode").mean, language) > 0.8


class StubRecords(Records):
    """Stored features of the tracks, as far as these tests look at them."""

    lyrics = None

    def __init__(self, inputs):
        arrays = {name: np.asarray(x) for name, x in inputs.x.items()}
        self.arrays = {name: ArraySpec(x.shape[1:], "float32") for name, x in arrays.items()}
        self.arrays |= {f"has_{name}": ArraySpec((), "uint8") for name in arrays}
        there = {name: np.asarray(inputs.mask[name]) for name in arrays}
        self.statistics = {name: Statistics.of(x[there[name] > 0]) for name, x in arrays.items()}
        self.num_frames = np.zeros(NUM_TRACKS, np.int32)
        self.ids = np.arange(NUM_TRACKS).astype(str)
        self._values = arrays | {f"has_{name}": mask for name, mask in there.items()}

    def load(self, positions):
        return {name: values[positions] for name, values in self._values.items()}


def test_pca_that_is_treated_alike_finds_both_structures_too():
    inputs, style, language = tracks()
    config = get_config()
    config.model.update(latent_dim=4, num_components=NUM_STYLES)
    points = modalities.linear(SimpleNamespace(records=StubRecords(inputs), config=config), seed=0)
    assert points.shape == (NUM_TRACKS, 8)
    assert agreement(points, style) > 0.9
    assert agreement(points, language) > 0.9


@pytest.mark.parametrize("frames_per_track", [0, 9])
def test_lyrics_count_for_more_the_fewer_tracks_have_them(frames_per_track):
    records = StubRecords(tracks()[0])
    if frames_per_track:  # of which the statistics are, where frames are stored
        records.num_frames = np.full(NUM_TRACKS, frames_per_track, np.int32)
        audio = np.repeat(records.load(slice(None))["audio"], frames_per_track, axis=0)
        records.statistics["audio"] = Statistics.of(audio)
    config = get_config()
    config.feature.lyrics_weight = 3.0
    config.model.name = "multimodal"
    described = ModelSpec.of(to_dict(config), records, [])
    assert described.lyrics_weight == pytest.approx(3.0 * 2**0.5)
    assert described.config == to_dict(config)
    model, _ = described.build()
    assert model.weights == {"audio": 1.0, "lyrics": described.lyrics_weight}
