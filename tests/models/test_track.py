"""The track VAE and its view, against float64 references and on tracks that differ by design."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.fft import dct
from scipy.linalg import logm
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_predict

from tests.models.compiled import apply
from vae_jax.config import get_config, to_dict
from vae_jax.models import track
from vae_jax.models.posterior import Posterior
from vae_jax.models.vae import Inputs
from vae_jax.parallel import devices
from vae_jax.records.reader import Records
from vae_jax.records.statistics import ArraySpec, Statistics
from vae_jax.training import track_view, train
from vae_jax.training.input_pipeline import Source
from vae_jax.training.model_spec import ModelSpec

BANDS, SEGMENT, NUM_TRACKS = 3, 16, 24
NUM_GROUPS = 3
make_mesh = devices.make_mesh


class StubRecords(Records):
    """Tracks in memory: noise whose level, by band, depends on the group; lengths differ."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        level = rng.uniform(0.2, 3.0, (NUM_GROUPS, BANDS))
        self.groups = np.arange(NUM_TRACKS) % NUM_GROUPS
        lengths = rng.integers(5 * SEGMENT, 9 * SEGMENT, NUM_TRACKS)
        self._frames = [
            (rng.normal(0, level[group], (length, BANDS)) + rng.normal()).astype(np.float16)
            for group, length in zip(self.groups, lengths, strict=True)
        ]
        self.ids = np.array([f"track-{i}" for i in range(NUM_TRACKS)])
        self.arrays = {"features": ArraySpec((None, BANDS), "float16")}
        self.statistics = {"features": Statistics.of(np.concatenate(self._frames))}
        self.num_frames = lengths.astype(np.int32)

    @property
    def lyrics(self):
        return None

    def load(self, positions):
        return {"features": [self._frames[position] for position in positions]}


def settings(**model):
    config = get_config()
    config.model.update(name="track", latent_dim=4, hidden_dims=(16,))
    config.model.update(segment_frames=SEGMENT, num_segments=4, beta_warmup_steps=20)
    config.model.update(channels=(4, 8), **model)
    config.train.update(num_steps=200, batch_size=16, log_every=50, learning_rate=1e-2)
    return to_dict(config)


@functools.cache
def described(**model):
    return ModelSpec.of(settings(**model), StubRecords(), [])


def initialised(**model):
    model, view = described(**model).build()
    inputs = jax.jit(view.sample)(some_tracks(), jax.random.key(0))
    variables = jax.jit(model.init)(jax.random.key(1), inputs, jax.random.key(2))
    return model, variables, view, inputs


def some_tracks(positions=(0, 1, 2, 3)):
    positions = np.array(positions)
    loaded = Source(StubRecords()).load(positions)
    return {name: jnp.array(values) for name, values in (loaded | {"position": positions}).items()}


def encode(model, variables, inputs):
    return jax.jit(functools.partial(model.apply, method="encode"))(variables, inputs)


def test_a_posterior_is_the_product_of_the_prior_and_all_evidence():
    rng = np.random.default_rng(0)
    mean, log_variance = rng.normal(size=(2, 3, 5, 4))
    mask = (rng.uniform(size=(3, 5)) < 0.6).astype(float)
    found = track.multiply(Posterior(jnp.array(mean), jnp.array(log_variance)), jnp.array(mask))
    for i in range(3):
        precision, weighted = np.ones(4), np.zeros(4)
        for s in range(5):
            precision += mask[i, s] / np.exp(log_variance[i, s])
            weighted += mask[i, s] * mean[i, s] / np.exp(log_variance[i, s])
        np.testing.assert_allclose(found.mean[i], weighted / precision, rtol=1e-4)
        np.testing.assert_allclose(found.log_variance[i], -np.log(precision), atol=1e-5)


@pytest.mark.slow
def test_fewer_segments_leave_a_larger_variance():
    model, variables, view, _ = initialised()
    inputs = view.whole(some_tracks())
    some = encode(model, variables, inputs.replace(mask=inputs.mask.at[:, 2:].set(0)))
    everything = encode(model, variables, inputs)
    assert (some.log_variance > everything.log_variance).all()
    assert (some.log_variance < 0).all()


@pytest.mark.parametrize("encoder", ["mlp", "conv2d"])
def test_segments_that_are_masked_change_nothing(encoder):
    model, variables, _, inputs = initialised(encoder=encoder)
    mask = inputs.mask.at[0, 2:].set(0)
    other = jax.tree.map(lambda x: x.at[0, 2:].set(7.0), inputs.x)
    apply = jax.jit(model.apply)
    outcomes = [
        apply(variables, Inputs(x, mask, position=inputs.position), jax.random.key(0))
        for x in (inputs.x, other)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *outcomes)


def test_the_loss_is_that_of_a_float64_reference():
    contrast = 2.0
    model, variables, _, inputs = initialised(contrast=contrast)
    variables = jax.tree.map(lambda leaf: leaf + 0.02, variables)  # the corrections start at zero
    key = jax.random.key(3)
    found = jax.jit(model.apply)(variables, inputs, key)
    evidence = apply(model, variables, inputs, method="_evidence")
    posterior = apply(model, variables, inputs, method="infer")
    likelihood = apply(model, variables, posterior.sample(key), method="decode")
    x = np.asarray(inputs.x["whitened"], np.float64)
    log_scale = np.asarray(likelihood.log_scale, np.float64)
    error = (x - np.asarray(likelihood.mean, np.float64)[:, None]) / np.exp(log_scale)
    nats = (error**2 / 2 + log_scale).sum(axis=(1, 2))
    np.testing.assert_allclose(found.reconstruction, nats, rtol=1e-4)

    between = np.array(model.between[:4], np.float64)
    mean, log_variance = (
        np.asarray(x, np.float64) for x in (posterior.mean, posterior.log_variance)
    )
    spread = np.exp(log_variance) / between
    kl = 0.5 * (mean**2 / between + spread - 1 - np.log(spread))
    np.testing.assert_allclose(found.kl, kl, rtol=1e-3, atol=1e-5)
    halves = []
    for side in (0, 1):
        precision = np.exp(-np.asarray(evidence.log_variance, np.float64))[:, side::2]
        total = 1 / between + precision.sum(axis=1)
        half = (precision * np.asarray(evidence.mean)[:, side::2]).sum(axis=1) / total
        halves.append(half / np.linalg.norm(half, axis=1, keepdims=True))
    odds = np.exp(halves[0] @ halves[1].T / track.TEMPERATURE)
    chosen = np.diag(odds)
    info = -(np.log(chosen / odds.sum(axis=0)) + np.log(chosen / odds.sum(axis=1))) / 2
    np.testing.assert_allclose(found.other, contrast * info, rtol=1e-4)


def test_a_track_that_a_batch_holds_twice_is_not_its_own_negative():
    model, variables, _, inputs = initialised(contrast=1.0)
    twice = jax.tree.map(lambda leaf: leaf[jnp.array([0, 1, 0])], inputs)
    apart = twice.replace(position=jnp.arange(3))
    alone = jax.tree.map(lambda leaf: leaf[jnp.array([0, 1])], inputs)

    @jax.jit
    def contrast(batch):
        evidence = apply(model, variables, batch, method="_evidence")
        return apply(model, variables, evidence, batch, method="_contrast")

    np.testing.assert_allclose(contrast(twice)[0], contrast(alone)[0], rtol=1e-5)
    assert contrast(apart)[0] > contrast(alone)[0] + 0.1


def test_a_track_of_one_segment_takes_no_part_in_the_contrast_and_has_finite_gradients():
    model, variables, _, inputs = initialised(contrast=1.0)
    short = inputs.replace(mask=inputs.mask.at[0, 1:].set(0))
    others = jax.tree.map(lambda leaf: leaf[1:], short)

    @jax.jit
    def contrast(batch):
        evidence = apply(model, variables, batch, method="_evidence")
        return apply(model, variables, evidence, batch, method="_contrast")

    found = contrast(short)
    assert found[0] == 0
    np.testing.assert_allclose(found[1:], contrast(others), rtol=1e-5)

    def total(variables, batch):
        terms = apply(model, variables, batch, jax.random.key(0))
        return terms.reconstruction.sum() + terms.kl.sum() + terms.other.sum()

    for batch in (short, inputs.replace(mask=jnp.zeros_like(inputs.mask).at[:, 0].set(1))):
        grads = jax.jit(jax.grad(total))(variables, batch)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_a_description_is_the_mean_the_log_energy_of_every_octave_and_the_log_covariance():
    rng = np.random.default_rng(0)
    segments = rng.normal(size=(2, 45, BANDS))
    found = np.asarray(track_view.describe(jnp.array(segments)))
    smooth, expected = segments, [segments.mean(axis=1)]
    for _ in range(5):
        pairs = smooth[:, : smooth.shape[1] // 2 * 2].reshape(2, -1, 2, BANDS)
        energy = pairs.var(axis=2, ddof=1).mean(axis=1)
        expected.append(np.log(energy + track_view.SILENCE) / 2)
        smooth = pairs.mean(axis=2)
    covariance = [np.cov(one.T, bias=True) + track_view.NOISE * np.eye(BANDS) for one in segments]
    expected.append(np.array([logm(one)[np.triu_indices(BANDS, 1)] for one in covariance]))
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-4, atol=1e-4)


def test_the_covariance_of_a_spectrum_is_that_of_its_first_cepstral_coefficients():
    segments = np.random.default_rng(0).normal(size=(1, 64, 80)).cumsum(axis=2)
    found = np.asarray(track_view.describe(jnp.array(segments)))[0]
    size = track_view.COVARIED
    cepstra = dct(segments[0], norm="ortho")[:, :size]
    expected = logm(np.cov(cepstra.T, bias=True) + track_view.NOISE * np.eye(size))
    assert found.shape == (6 * 80 + size * (size - 1) // 2,)
    np.testing.assert_allclose(found[6 * 80 :], expected[np.triu_indices(size, 1)], atol=1e-2)


@pytest.mark.parametrize("octave", range(4))
def test_a_square_wave_is_found_in_its_own_octave(octave):
    wave = np.repeat([1.0, -1.0], 2**octave)
    described = np.asarray(track_view.describe(jnp.array(np.tile(wave, 64 // len(wave))[:, None])))
    assert described[1:].argmax() == octave
    np.testing.assert_allclose(np.delete(described[1:], octave), np.log(track_view.SILENCE) / 2)


def test_silence_and_segments_of_one_frame_have_finite_descriptions():
    assert np.isfinite(track_view.describe(jnp.zeros((2, 64, BANDS)))).all()
    assert track_view.describe(jnp.ones((2, 1, BANDS))).tolist() == [[1.0] * BANDS] * 2


def test_all_segments_of_a_track_are_described_and_padding_is_masked():
    records, view = StubRecords(), described().build()[1]
    inputs = view.whole(some_tracks(range(NUM_TRACKS)))
    assert inputs.mask.sum(axis=1).tolist() == (records.num_frames // SEGMENT).tolist()
    seen = np.asarray(inputs.x["description"])[np.asarray(inputs.mask) == 1]
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(seen.std(axis=0), 1, rtol=1e-3)


def test_training_sees_segments_that_do_not_overlap_and_all_lie_within_the_track():
    view = described(input_noise=0.0).build()[1]
    frames = jnp.arange(3 * 100 * BANDS, dtype=jnp.float32).reshape(3, 100, BANDS)
    tracks = {"features": frames, "num_frames": jnp.array([100, 40, 10])}
    sample = jax.jit(view.sample)
    for seed in range(20):
        inputs = sample(tracks, jax.random.key(seed))
        x = np.asarray(inputs.x["segments"])[..., 0] / view.frames.scale[0] + view.frames.mean[0]
        frame = np.rint(x / BANDS - 100 * np.arange(3)[:, None, None]).astype(int)
        assert inputs.mask.sum(axis=1).tolist()[0] == 4
        assert inputs.mask.sum(axis=1).tolist()[1] in (1, 2)
        assert inputs.mask.sum(axis=1).tolist()[2] == 1
        for i, length in enumerate((100, 40)):
            there = frame[i][np.asarray(inputs.mask)[i] == 1].ravel()
            assert len(set(there.tolist())) == len(there)
            assert there.min() >= 0
            assert there.max() < length
        assert frame[2, 0].tolist() == [t % 10 for t in range(frame[2, 0, 0], frame[2, 0, 0] + 16)]


def use_devices(monkeypatch, number):
    some = jax.devices()[:number]
    monkeypatch.setattr(devices, "make_mesh", lambda num_seeds=1: make_mesh(some, num_seeds))


@pytest.mark.slow
def test_training_separates_tracks_that_differ(monkeypatch):
    use_devices(monkeypatch, 1)
    records, model_spec = StubRecords(), described()
    program = train.prepare(Source(records), model_spec)
    state, _ = program.train_steps(program.state, 0, 200)
    model, view = model_spec.build()
    tracks = some_tracks(range(NUM_TRACKS))
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    z = np.asarray(encode(model, {"params": params}, view.whole(tracks)).mean)
    distances = np.linalg.norm(z[:, None] - z, axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (records.groups[distances.argmin(axis=1)] == records.groups).mean() > 0.9


def test_augmentation_changes_level_and_tilt_by_half_and_hides_a_block():
    shape = (2, 6, 32, 16)
    changed = np.asarray(track_view.augment(jnp.zeros(shape), 1.0, jax.random.key(0)))
    hidden = changed == 0
    assert hidden.any()
    assert hidden.mean() < 0.25
    for one, side in np.ndindex(2, 2):
        segments, mask = changed[one, side::2], hidden[one, side::2]
        level = segments.sum(axis=(0, 1)) / (~mask).sum(axis=(0, 1))
        np.testing.assert_allclose(segments, np.where(mask, 0, level), atol=1e-5)
        np.testing.assert_allclose(np.diff(level), np.diff(level)[0], atol=1e-5)  # a tilt
    assert np.ptp(changed[:, :2].max(axis=(2, 3))) > 0.1  # tracks and halves differ
    still = track_view.augment(jnp.ones(shape), 0.0, jax.random.key(0))
    assert set(np.unique(still)) == {0.0, 1.0}


@pytest.mark.parametrize("see", [lambda view: view.whole, lambda view: view.sample])
def test_precomputed_descriptions_are_those_of_the_segments(see):
    _, view = described().build()
    tracks = some_tracks(range(NUM_TRACKS))
    ready = jax.tree.map(jnp.asarray, dict(view.precompute(tracks)))
    assert "features" not in ready
    key = () if see(view) == view.whole else (jax.random.key(0),)
    plain, precomputed = (see(view)(one, *key) for one in (tracks, ready))
    mask = np.asarray(plain.mask)[..., None]
    np.testing.assert_array_equal(plain.mask, precomputed.mask)
    np.testing.assert_allclose(
        mask * plain.x["description"], mask * precomputed.x["description"], atol=1e-5
    )


@pytest.mark.slow
def test_many_devices_train_as_one_does(monkeypatch):
    losses = []
    for number in (1, 2):
        use_devices(monkeypatch, number)
        program = train.prepare(Source(StubRecords()), described())
        _, metrics = program.train_steps(program.state, 0, 5)
        losses.append(metrics["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


class TwoCovariances(Records):
    """Tracks that differ by half their variance in bands whose noise within tracks differs."""

    def __init__(self, num_tracks: int = 1000, bands: int = 10) -> None:
        rng = np.random.default_rng(1)
        noise = np.linspace(0.2, 1.5, bands)
        self._frames = []
        for mean in rng.normal(0, 1, (num_tracks, bands)) * np.linspace(2, 0.5, bands):
            segments = mean + noise * rng.normal(size=(rng.integers(3, 8), bands))
            frames = np.repeat(segments, SEGMENT, axis=0)
            frames += rng.normal(0, 0.5, frames.shape)
            self._frames.append(frames.astype(np.float16))
        self.ids = np.array([f"track-{i}" for i in range(num_tracks)])
        self.arrays = {"features": ArraySpec((None, bands), "float16")}
        self.statistics = {"features": Statistics.of(np.concatenate(self._frames))}
        self.num_frames = np.array([len(frames) for frames in self._frames], np.int32)

    lyrics = None

    def load(self, positions):
        return {"features": [self._frames[position] for position in positions]}


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [150, 900])
def test_the_latent_keeps_what_segments_share_however_long_it_is_trained(monkeypatch, num_steps):
    use_devices(monkeypatch, 1)
    records, config = TwoCovariances(), settings()
    config["model"].update(latent_dim=32, input_noise=0.2)
    config["train"].update(num_steps=num_steps, learning_rate=1e-3, log_every=150)
    model_spec = ModelSpec.of(config, records, [])
    program = train.prepare(Source(records), model_spec)
    state, _ = program.train_steps(program.state, 0, num_steps)
    model, view = model_spec.build()
    tracks = {name: jnp.array(x) for name, x in Source(records).load(np.arange(1000)).items()}
    inputs = jax.jit(view.whole)(tracks)
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    z = np.asarray(encode(model, {"params": params}, inputs).mean)
    weight = np.asarray(inputs.mask)[..., None]
    means = (weight * inputs.x["description"]).sum(axis=1) / weight.sum(axis=1)
    first = PCA(8, random_state=0).fit_transform(means)
    found = cross_val_predict(LinearRegression(), z, first, cv=5)
    assert (1 - (found - first).var(axis=0) / first.var(axis=0)).min() > 0.95
    metrics = jax.device_get(program.evaluate(state.params))
    assert metrics["variance_kept_first"] > 0.9  # by a fixed map, not one that is fitted


def test_the_start_is_the_closed_form_of_two_covariances():
    model, variables, view, _ = initialised(latent_dim=4)
    inputs = view.whole(some_tracks(range(NUM_TRACKS)))
    found = encode(model, variables, inputs)
    mask, x = np.asarray(inputs.mask)[..., None], np.asarray(inputs.x["whitened"])[..., :4]
    between = np.array(model.between[:4])
    expected = (mask * x).sum(axis=1) / (1 / between + mask.sum(axis=1))
    distances = [
        np.linalg.norm(points[:, None] - points, axis=-1) for points in (found.mean, expected)
    ]
    np.testing.assert_allclose(*distances, rtol=1e-3, atol=1e-3)
