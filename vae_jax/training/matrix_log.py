"""Logarithms of many small symmetric matrices at once, by Jacobi's rotations.

JAX gives such a batch to LAPACK, which on a CPU waits for threads of the pool that it runs in: two
devices on two cores then wait for each other for ever. Here nothing waits, and accelerators compile
a short loop.
"""

import jax
import jax.numpy as jnp
import numpy as np

SWEEPS = 7  # over all pairs of axes; float32 converges in six


def matrix_log(matrices: jax.Array, floor: float) -> jax.Array:
    """Return the logarithms of symmetric matrices, [C, C, ...] -> [C, C, ...], both float32.

    Eigenvalues below `floor` count as `floor`. A round turns C / 2 pairs of axes until each pair is
    uncorrelated, and in a sweep of C - 1 rounds all pairs meet (Golub and Van Loan 2013, 8.5).
    Matrices lie along the last axes, so that a processor's vectors hold several.
    """
    size, rest = len(matrices), (1,) * (matrices.ndim - 2)
    even = size + size % 2
    pad = [(0, even - size)] * 2 + [(0, 0)] * len(rest)
    order, rounds = _tournament(even), SWEEPS * (even - 1)
    identity = jnp.broadcast_to(
        jnp.eye(even).reshape(even, even, *rest), (even, even, *matrices.shape[2:])
    )

    def play(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        matrix, axes = carry
        cosine, sine = _rotations(matrix)
        matrix = jnp.swapaxes(_turn(matrix, cosine, sine)[order], 0, 1)
        matrix = _turn(matrix, cosine, sine)[order]
        return matrix, _turn(axes, cosine, sine)[order]

    matrix, axes = jax.lax.fori_loop(0, rounds, play, (jnp.pad(matrices, pad), identity))
    logarithms = jnp.log(jnp.maximum(jnp.einsum("ii...->i...", matrix), floor))
    axes = axes[:, :size]
    return jnp.einsum("k...,ki...,kj...->ij...", logarithms, axes, axes)


def _rotations(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return cosines and sines that make rows 0 and 1, 2 and 3, ... uncorrelated, [C / 2, ...]."""
    first = np.arange(0, len(matrix), 2)
    second = first + 1
    apart, shared = matrix[second, second] - matrix[first, first], 2 * matrix[first, second]
    divisor = apart + jnp.where(apart >= 0, 1, -1) * jnp.sqrt(apart**2 + shared**2)
    tangent = jnp.where(shared == 0, 0, shared / jnp.where(shared == 0, 1, divisor))
    cosine = jax.lax.rsqrt(1 + tangent**2)
    return cosine, tangent * cosine


def _turn(rows: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    """Turn rows 0 and 1, 2 and 3, ..., [C, C, ...], each pair by its angle."""
    first, second, cosine, sine = rows[::2], rows[1::2], cosine[:, None], sine[:, None]
    pair = (cosine * first - sine * second, sine * first + cosine * second)
    return jnp.stack(pair, axis=1).reshape(rows.shape)


def _tournament(size: int) -> np.ndarray:
    """Return the order in which rows follow each other after a round, [C].

    The first stays where it is. The others move up along the even places and down along the odd
    ones, so that after C - 1 rounds each has been beside each.
    """
    circle = np.concatenate([np.arange(0, size, 2), np.arange(size - 1, 0, -2)])
    order = np.empty(size, int)
    order[circle] = [circle[0], *np.roll(circle[1:], 1)]
    return order
