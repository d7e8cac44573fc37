"""The count of operations, against formulas."""

import jax
import jax.numpy as jnp

from benchmarks import flops

BATCH, WIDE, NARROW = 3, 7, 5


def dense(weights: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.square(x @ weights).sum()


def test_products_are_counted_with_their_gradients() -> None:
    weights, x = jnp.ones((WIDE, NARROW)), jnp.ones((BATCH, WIDE))
    assert flops.count(dense, weights, x) == 2 * BATCH * WIDE * NARROW
    assert flops.count(jax.grad(dense), weights, x) == 2 * (2 * BATCH * WIDE * NARROW)
    assert flops.count(jax.jit(jax.grad(dense, (0, 1))), weights, x) == 3 * (
        2 * BATCH * WIDE * NARROW
    )


def test_batches_scans_and_several_seeds_count_each_product() -> None:
    many = jax.vmap(dense)
    assert flops.count(many, jnp.ones((4, WIDE, NARROW)), jnp.ones((4, BATCH, WIDE))) == 4 * (
        2 * BATCH * WIDE * NARROW
    )

    def repeat(weights: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda total, one: (total + dense(weights, one), None), 0.0, x)[0]

    assert flops.count(repeat, jnp.ones((WIDE, NARROW)), jnp.ones((6, BATCH, WIDE))) == 6 * (
        2 * BATCH * WIDE * NARROW
    )


def test_convolutions_count_the_products_under_the_kernel() -> None:
    x, kernel = jnp.ones((BATCH, 8, 8, WIDE)), jnp.ones((3, 3, WIDE, NARROW))
    numbers = ("NHWC", "HWIO", "NHWC")

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=numbers)

    assert flops.count(convolve, x, kernel) == 2 * (BATCH * 4 * 4 * NARROW) * (3 * 3 * WIDE)
