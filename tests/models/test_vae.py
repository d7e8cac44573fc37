import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from tests.models.compiled import apply, init
from vae_jax.config import get_config, to_dict
from vae_jax.models import build, conv2d
from vae_jax.models.multimodal import balance
from vae_jax.models.posterior import Posterior, side_by_side
from vae_jax.models.vae import Elbo, Gaussian, Inputs, loss, weighted_mean

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
    terms = Elbo(
        jnp.array(reconstruction), jnp.array(kl), jnp.zeros(6), jnp.zeros((6, 3)), jnp.zeros(6)
    )
    found = loss(terms, jnp.array(weight), beta, free_bits)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_padding_of_any_value_does_not_count():
    values = jnp.array([[1.0, 2.0], [3.0, 4.0], [1e9, -1e9]])
    np.testing.assert_allclose(weighted_mean(values, jnp.array([1.0, 1.0, 0.0])), [2, 3])


def test_the_likelihood_under_posterior_samples_matches_its_closed_form():
    # p(x|z) = N(z, s^2), q(z|x) = N(m, v): E[-log p] = log s + log(2 pi)/2 + ((x-m)^2 + v) / 2s^2.
    x, mean, variance, scale = 1.3, 0.8, 0.2, 0.5
    n = 400_000
    posterior = Posterior(jnp.full((n, 1), mean), jnp.full((n, 1), np.log(variance)))
    nats = Gaussian(posterior.sample(jax.random.key(1)), jnp.log(scale)).negative_log_prob(
        jnp.full((n, 1), x)
    )
    expected = np.log(scale) + np.log(2 * np.pi) / 2 + ((x - mean) ** 2 + variance) / 2 / scale**2
    np.testing.assert_allclose(nats.mean(), expected, rtol=5e-3)


def test_latents_side_by_side_are_standard_normal_where_a_track_lacks_them():
    blocks = [Posterior(jnp.full((2, size), 4.0), jnp.full((2, size), -1.0)) for size in (1, 2)]
    joined = side_by_side(blocks, [jnp.ones(2), jnp.array([1.0, 0.0])])
    np.testing.assert_allclose(joined.mean, [[4, 4, 4], [4, 0, 0]])
    np.testing.assert_allclose(joined.log_variance, [[-1, -1, -1], [-1, 0, 0]])
    np.testing.assert_allclose(joined.known, [[1, 1, 1], [1, 0, 0]])


def test_a_scaled_posterior_is_that_of_scaled_latents():
    posterior = Posterior(jnp.full((200_000, 1), 2.0), jnp.full((200_000, 1), np.log(0.25)))
    z = posterior.scale(jnp.array([3.0])).sample(jax.random.key(0))
    assert abs(float(z.mean()) - 6) < 0.02
    assert abs(float(z.std()) - 1.5) < 0.02


def config_of(**model):
    config = to_dict(get_config())
    config["model"] |= {"latent_dim": 3, "hidden_dims": [8], "channels": [4, 8]} | model
    return config


@pytest.mark.parametrize("learned_scale", [True, False])
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ({"name": "mlp"}, (5,)),
        ({"name": "conv2d", "kernel_size": 2}, (10, 7)),
        ({"name": "conv2d", "kernel_size": 3}, (16, 13)),
        ({"name": "conv2d", "dtype": "bfloat16"}, (8, 8)),
    ],
)
def test_a_vae_encodes_and_decodes_the_shapes_it_promises(model, shape, learned_scale):
    module = build(config_of(learned_scale=learned_scale, **model), shape)
    inputs, key = Inputs(jnp.ones((4, *shape))), jax.random.key(0)
    variables = init(module, key, inputs, key)
    terms = apply(module, variables, inputs, key)
    assert terms.kl.shape == (4, 3)
    assert terms.reconstruction.shape == terms.squared_error.shape == (4,)
    posterior = apply(module, variables, inputs, method="encode")
    assert posterior.mean.shape == posterior.log_variance.shape == (4, 3)
    assert posterior.mean.dtype == jnp.float32
    assert apply(module, variables, posterior.mean, method="decode").mean.shape == (4, *shape)
    assert ("log_scale" in variables["params"]) == learned_scale


@pytest.mark.slow
def test_a_tracks_posterior_is_the_mean_over_its_real_segments():
    module = build(config_of(name="conv2d"), (8, 8))
    key = jax.random.key(0)
    x = jax.random.normal(key, (2, 3, 8, 8))
    mask = jnp.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    variables = init(module, key, Inputs(x[:, 0]), key)
    pooled = apply(module, variables, Inputs(x, mask), method="encode")
    each = apply(module, variables, Inputs(x.reshape(6, 8, 8)), method="encode").mean
    np.testing.assert_allclose(pooled.mean[0], each[:3].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled.mean[1], each[3], rtol=1e-5, atol=1e-6)


def test_a_deterministic_model_ignores_the_key_and_has_no_kl():
    module = build(config_of(name="mlp", deterministic=True, input_noise=0.0), (5,))
    inputs = Inputs(jnp.ones((4, 5)))
    variables = init(module, jax.random.key(0), inputs, jax.random.key(0))
    first, second = (apply(module, variables, inputs, jax.random.key(i)) for i in (1, 2))
    np.testing.assert_array_equal(first.reconstruction, second.reconstruction)
    assert float(first.kl.sum()) == 0


def test_the_condition_reaches_encoder_and_decoder():
    module = build(config_of(name="mlp"), (5,))
    x, key = jnp.ones((2, 5)), jax.random.key(0)
    inputs = Inputs(x, condition=jnp.eye(2))
    variables = init(module, key, inputs, key)
    posterior = apply(module, variables, inputs, method="encode")
    assert not np.allclose(posterior.mean[0], posterior.mean[1])
    decoded = apply(module, variables, jnp.zeros((2, 3)), jnp.eye(2), method="decode").mean
    assert not np.allclose(decoded[0], decoded[1])


def test_channels_become_two_by_two_patches():
    x = jnp.arange(2 * 2 * 3 * 12.0).reshape(2, 2, 3, 12)
    pixels = conv2d.depth_to_space(x)
    assert pixels.shape == (2, 4, 6, 3)
    np.testing.assert_array_equal(pixels[1, 2:4, 4:6].reshape(-1), x[1, 1, 2])


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_quadtree_keeps_patches_together_at_all_levels_and_is_inverted(levels):
    x = jnp.arange(2 * 8 * 16 * 3.0).reshape(2, 8, 16, 3)
    order = conv2d.to_quadtree(x, levels)
    for level in range(1, levels + 1):
        patches = order.reshape(2, -1, 4**level, 3)
        for patch in patches[1, :: 4 ** (3 - level)]:
            assert np.ptp(patch // 48 % 8, axis=0).max() == 2**level - 1  # rows
            assert np.ptp(patch // 3 % 16, axis=0).max() == 2**level - 1  # columns
    np.testing.assert_array_equal(conv2d.from_quadtree(order, levels, (8, 16)), x)


def test_two_levels_of_patches_equal_strided_convolutions():
    x = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    kernels = [
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in ((1, (2, 2, 3, 5)), (2, (2, 2, 5, 4)))
    ]
    expected, found = x, conv2d.to_quadtree(x, 2)
    for kernel in kernels:
        expected = jax.lax.conv_general_dilated(
            expected, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        found = found.reshape(2, -1, 4 * kernel.shape[2]) @ kernel.reshape(-1, kernel.shape[3])
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "stride"), [((8, 6), 2), ((7, 5), 2), ((7, 5), 1)])
def test_convolution_by_patches_equals_that_of_xla(size, stride):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def of(convolve):
        return lambda x, kernel: convolve(x, kernel, (stride, stride), "SAME", **layout)

    plain, patches = of(jax.lax.conv_general_dilated), of(conv2d.convolve)
    expected, backward = jax.vjp(plain, x, kernel)
    found, own_backward = jax.vjp(patches, x, kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    for gradient, reference in zip(own_backward(expected), backward(expected), strict=True):
        np.testing.assert_allclose(gradient, reference, rtol=1e-4, atol=1e-3)


def multimodal_inputs(has_audio, has_lyrics):
    n = len(has_audio)
    x = {"audio": jnp.ones((n, 5)), "lyrics": jnp.ones((n, 4))}
    mask = {"audio": jnp.array(has_audio, float), "lyrics": jnp.array(has_lyrics, float)}
    return Inputs(x, mask)


def test_a_missing_modality_changes_neither_posterior_nor_loss():
    module = build(config_of(name="multimodal"), {"audio": (5,), "lyrics": (4,)})
    inputs, key = multimodal_inputs([1, 1, 0], [1, 0, 1]), jax.random.key(0)
    variables = init(module, key, inputs, key)
    other = Inputs({"audio": inputs.x["audio"].at[2].set(99.0), "lyrics": inputs.x["lyrics"]})
    other = other.replace(mask=inputs.mask)
    first, second = (apply(module, variables, i, method="encode").mean for i in (inputs, other))
    np.testing.assert_array_equal(first, second)
    losses = [apply(module, variables, i, key).reconstruction for i in (inputs, other)]
    np.testing.assert_array_equal(*losses)


def start(variables, values, name="mean"):
    """Give the prior's components these means, [K, L], in place of zeros; or log variances."""
    prior = variables["params"]["prior"] | {name: jnp.array(values, jnp.float32)}
    return {"params": variables["params"] | {"prior": prior}}


def test_a_missing_modality_is_that_of_the_likeliest_component():
    config = config_of(name="multimodal", prior="mixture", num_components=2, latent_dim=1)
    module = build(config, {"audio": (5,), "lyrics": (4,)})
    inputs, key = multimodal_inputs([1, 1], [1, 0]), jax.random.key(0)
    variables = init(module, key, inputs, key)
    audio = float(apply(module, variables, inputs, method="encode").mean[1, 0])
    for near in (0, 1):  # which component has the audio of both tracks
        means = np.array([[audio, 2.0], [audio, -2.0]])
        means[1 - near, 0] += 4.0
        q = apply(module, start(variables, means), inputs, method="encode")
        scale = float(q.mean[1, 0]) / audio
        assert scale == pytest.approx(float(q.mean[0, 0]) / audio)
        assert float(q.mean[1, 1]) == pytest.approx(means[near, 1] * scale, rel=1e-4)
        assert q.known.tolist() == [[1, 1], [1, 0]]
        assignment = apply(module, start(variables, means), q, method="assign")
        assert int(assignment[1].argmax()) == near


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_modalities_vary_within_components_as_they_are_weighted(weight):
    within = jnp.array([1.0, 8.0, 0.3, 0.1])  # of two dimensions of each
    factors = balance(within, jnp.array([1.0, weight]))
    audio, lyrics = (within * factors**2).reshape(2, 2).sum(axis=1)
    np.testing.assert_allclose(lyrics, weight**2 * audio, rtol=1e-5)
    np.testing.assert_allclose(factors[0], factors[1])  # no dimension is turned into another


def test_balanced_latents_are_decoded_as_they_were_encoded():
    config = config_of(name="multimodal", prior="mixture", num_components=2, latent_dim=1)
    config["feature"]["lyrics_weight"] = 3.0
    module = build(config, {"audio": (5,), "lyrics": (4,)})
    inputs, key = multimodal_inputs([1], [1]), jax.random.key(0)
    variables = init(module, key, inputs, key)
    fitted = start(start(variables, [[1.0, 0.5], [-1.0, -0.5]]), [[0, 1], [0, -2]], "log_variance")
    decoded = []
    for each in (variables, fitted):
        z = apply(module, each, inputs, method="encode").mean
        decoded.append((z, apply(module, each, z, method="decode")["lyrics"].mean))
    unbalanced = apply(module, variables, inputs, method="infer").mean
    np.testing.assert_array_equal(decoded[0][0], unbalanced)  # what the mixture is fitted to
    assert not np.allclose(decoded[0][0], decoded[1][0])
    np.testing.assert_allclose(decoded[0][1], decoded[1][1], rtol=1e-4)
