"""The mixture prior against numerical integration, its start from latents, and its training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import logsumexp

from vae_jax.models import priors
from vae_jax.models.posterior import Posterior
from vae_jax.training import mixture

RNG = np.random.default_rng(0)
K, L = 3, 2


def posterior(n=4):
    return Posterior(jnp.array(RNG.normal(size=(n, L))), jnp.array(RNG.normal(-1, 0.5, (n, L))))


def params(spread=1.0):
    return {
        "logits": jnp.array(RNG.normal(size=K)),
        "mean": jnp.array(spread * RNG.normal(size=(K, L))),
        "log_variance": jnp.array(RNG.normal(size=(K, L))),
    }


def cost(values, q):
    divergence = priors.Mixture(K, L).apply({"params": values}, q)
    return np.asarray(divergence.kl.sum(axis=-1) + divergence.assignment)


def test_before_it_is_initialised_a_mixture_is_the_standard_normal():
    q = posterior()
    model = priors.Mixture(K, L)
    found = model.apply(model.init(jax.random.key(0), q), q)
    np.testing.assert_allclose(found.kl, q.kl(), rtol=1e-5)
    np.testing.assert_allclose(found.assignment, 0, atol=1e-6)


def test_the_cost_is_the_bound_of_the_best_assignment_in_float64():
    q, values = posterior(), params()
    wide = {name: np.asarray(array, np.float64) for name, array in values.items()}
    mean, variance = np.asarray(q.mean, float)[:, None], np.exp(np.asarray(q.log_variance))[:, None]
    prior = np.exp(wide["log_variance"])
    kl = 0.5 * (
        variance / prior + (mean - wide["mean"]) ** 2 / prior - 1 - np.log(variance / prior)
    )
    log_weights = wide["logits"] - logsumexp(wide["logits"])
    expected = -logsumexp(log_weights - kl.sum(axis=-1), axis=-1)
    np.testing.assert_allclose(cost(values, q), expected, rtol=1e-4)


@pytest.mark.parametrize(("spread", "is_tight"), [(1.0, False), (60.0, True)])
def test_the_cost_bounds_the_divergence_and_meets_it_when_components_are_apart(spread, is_tight):
    centers, log_weights = spread * np.array([0.3, -0.8, 1.1]), np.log([0.5, 0.3, 0.2])
    values = {
        "logits": jnp.array(log_weights),
        "mean": jnp.array(centers)[:, None],
        "log_variance": jnp.zeros((K, 1)),
    }
    q = Posterior(jnp.array([[centers[0]]]), jnp.full((1, 1), -1.0))
    divergence = priors.Mixture(K, 1).apply({"params": values}, q)
    bound = float(divergence.kl.sum() + divergence.assignment[0])
    density = stats.norm(centers[0], np.exp(-0.5))

    def integrand(z):
        log_p = logsumexp(stats.norm(centers).logpdf(z) + log_weights)
        return density.pdf(z) * (density.logpdf(z) - log_p)

    exact, _ = integrate.quad(integrand, centers[0] - 5, centers[0] + 5)
    assert bound >= exact - 1e-4
    assert (bound - exact < 1e-3) == is_tight


def test_a_mixture_is_fitted_to_the_clusters_of_the_latents():
    centers = np.array([[0, 0], [10, 0], [0, 10]])
    group = RNG.choice(3, 200, p=[0.5, 0.3, 0.2])
    mean = centers[group] + RNG.normal(0, 0.5, (200, L))
    found = mixture.fit(Posterior(mean, np.full((200, L), np.log(0.75))), K, seed=0)
    order = np.argmin(np.abs(found["mean"][:, None] - centers).sum(axis=-1), axis=0)
    np.testing.assert_allclose(found["mean"][order], centers, atol=0.3)
    np.testing.assert_allclose(np.exp(found["log_variance"]), 0.25 + 0.75, rtol=0.15)
    shares = (1 + np.bincount(group)) / 203
    np.testing.assert_allclose(np.exp(found["logits"][order]), shares, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_latents_that_coincide_give_a_finite_mixture():
    found = mixture.fit(Posterior(np.zeros((5, L)), np.full((5, L), -30.0)), K, seed=0)
    assert all(np.isfinite(array).all() for array in found.values())


def test_components_beyond_the_number_of_tracks_begin_in_the_middle():
    q = posterior(2)
    found = mixture.fit(q, K, seed=0)
    np.testing.assert_allclose(found["mean"][2], q.mean.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.exp(found["logits"]), [2 / 5, 2 / 5, 1 / 5], rtol=1e-5)


def test_assignments_are_probabilities():
    q, values = posterior(), params()
    found = priors.Mixture(K, L).apply({"params": values}, q, method="assign")
    assert found.shape == (4, K)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)


def two_modalities(n=120):
    """Return latents of two dimensions and what each track is: half lack the second.

    Groups of the second differ by much less than those of the first.
    """
    group = RNG.integers(0, 3, n)
    centers = np.array([[0, 0], [10, 1], [20, 0]])
    mean = centers[group] + RNG.normal(0, [0.5, 0.05], (n, 2))
    known = np.ones((n, 2), np.float32)
    known[::2, 1] = 0
    return Posterior(mean * known, np.full((n, 2), -6.0) * known, known), group, mean


def test_tracks_that_lack_a_modality_are_fitted_and_completed_by_those_that_resemble_them():
    q, group, mean = two_modalities()
    found = mixture.fit(q, 3, seed=0)
    order = np.argsort(found["mean"][:, 0])
    np.testing.assert_allclose(found["mean"][order], [[0, 0], [10, 1], [20, 0]], atol=0.4)
    prior = priors.Mixture(3, 2)
    completed = prior.apply({"params": found}, q, method="complete")
    np.testing.assert_allclose(completed.mean[:, 1], (group == 1), atol=0.3)
    np.testing.assert_array_equal(completed.mean[1::2], mean[1::2].astype(np.float32))


def test_what_is_missing_costs_nothing_under_a_mixture():
    values, q = params(), posterior()
    known = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], np.float32)
    moved = q.replace(mean=q.mean + 9 * (1 - known), known=known)
    np.testing.assert_allclose(cost(values, moved), cost(values, q.replace(known=known)), rtol=1e-5)
    first = {name: array[..., :1] for name, array in values.items()} | {"logits": values["logits"]}
    alone = priors.Mixture(K, 1).apply(
        {"params": first}, Posterior(q.mean[:, :1], q.log_variance[:, :1])
    )
    np.testing.assert_allclose(
        cost(values, moved)[1], (alone.kl.sum(axis=-1) + alone.assignment)[1], rtol=1e-4
    )
    np.testing.assert_allclose(cost(values, moved)[3], 0, atol=1e-6)


def test_a_modality_that_no_track_has_gives_a_finite_mixture():
    q, _, _ = two_modalities()
    known = np.array(q.known) * [1, 0]
    found = mixture.fit(q.replace(known=known), 3, seed=0)
    assert all(np.isfinite(array).all() for array in found.values())
