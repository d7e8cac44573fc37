import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from vae_jax.models import build
from vae_jax.models.vae import Elbo, Gaussian, Posterior, elbo, loss, weighted_mean

RNG = np.random.default_rng(0)


def test_the_kl_equals_numerical_integration():
    mean, log_variance = 0.7, -0.9
    q, p = stats.norm(mean, np.exp(log_variance / 2)), stats.norm(0, 1)
    expected, _ = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -10, 10)
    kl = Posterior(jnp.array([[mean]]), jnp.array([[log_variance]])).kl()
    np.testing.assert_allclose(kl, [[expected]], rtol=1e-5)


def test_the_likelihood_equals_scipys():
    x, mean = RNG.normal(0, 1, (3, 4, 5)), RNG.normal(0, 1, (3, 4, 5))
    log_scale = -0.3
    expected = -stats.norm(mean, np.exp(log_scale)).logpdf(x).sum(axis=(1, 2))
    found = Gaussian(jnp.array(mean), jnp.array(log_scale)).negative_log_prob(jnp.array(x))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_samples_have_the_posteriors_moments():
    posterior = Posterior(jnp.full((200_000, 1), 2.0), jnp.full((200_000, 1), np.log(0.25)))
    z = posterior.sample(jax.random.key(0))
    assert abs(float(z.mean()) - 2) < 0.01
    assert abs(float(z.std()) - 0.5) < 0.01


@pytest.mark.parametrize(("beta", "free_bits"), [(1.0, 0.0), (4.0, 0.0), (1.0, 0.5), (0.0, 0.0)])
def test_the_loss_equals_a_float64_reference(beta, free_bits):
    reconstruction, kl = RNG.uniform(10, 20, 6), RNG.uniform(0, 1, (6, 3))
    weight = np.array([1, 1, 0, 1, 1, 0.0])
    real = weight == 1
    expected = reconstruction[real].mean()
    expected += beta * np.maximum(kl[real].mean(axis=0), free_bits).sum()
    terms = Elbo(jnp.array(reconstruction), jnp.array(kl), jnp.zeros(6), jnp.zeros((6, 3)))
    found = loss(terms, jnp.array(weight), beta, free_bits)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_padding_of_any_value_does_not_count():
    values = jnp.array([[1.0, 2.0], [3.0, 4.0], [1e9, -1e9]])
    np.testing.assert_allclose(weighted_mean(values, jnp.array([1.0, 1.0, 0.0])), [2, 3])


def test_the_elbo_of_a_linear_model_matches_its_closed_form():
    # p(x|z) = N(z, s^2), q(z|x) = N(m, v): E[-log p] = log s + log(2 pi)/2 + ((x-m)^2 + v) / 2s^2.
    x, mean, variance, scale = 1.3, 0.8, 0.2, 0.5
    n = 400_000
    posterior = Posterior(jnp.full((n, 1), mean), jnp.full((n, 1), np.log(variance)))
    z = posterior.sample(jax.random.key(1))
    terms = elbo(posterior, Gaussian(z, jnp.log(scale)), jnp.full((n, 1), x))
    expected = np.log(scale) + np.log(2 * np.pi) / 2 + ((x - mean) ** 2 + variance) / 2 / scale**2
    np.testing.assert_allclose(terms.reconstruction.mean(), expected, rtol=5e-3)


@pytest.mark.parametrize("learned_scale", [True, False])
def test_the_mlp_vae_encodes_and_decodes_the_shapes_it_promises(learned_scale):
    settings = {
        "name": "mlp",
        "latent_dim": 3,
        "hidden_dims": [8],
        "learned_scale": learned_scale,
    }
    model = build(settings, input_dim=5)
    x, key = jnp.ones((4, 5)), jax.random.key(0)
    variables = model.init(key, x, key)
    terms = model.apply(variables, x, key)
    assert terms.kl.shape == (4, 3)
    assert terms.reconstruction.shape == terms.squared_error.shape == (4,)
    posterior = model.apply(variables, x, method="encode")
    assert posterior.mean.shape == posterior.log_variance.shape == (4, 3)
    assert model.apply(variables, posterior.mean, method="decode").mean.shape == (4, 5)
    assert ("log_scale" in variables["params"]) == learned_scale
