"""Several seeds' models as one program: an axis of parameters, states and results."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def over_seeds(
    function: Callable[..., Any],
    in_axes: Sequence[int | None],
    num_seeds: int,
    out_axis: int = 0,
) -> Callable[..., Any]:
    """Return `jax.vmap(function, in_axes, out_axis)`, at no cost for a single seed.

    A vmap of one seed would cost up to a third, since products with parameters become batched ones.
    """
    if num_seeds > 1:
        return jax.vmap(function, tuple(in_axes), out_axis)

    def alone(*arguments: Any) -> Any:
        own = [
            argument if axis is None else jax.tree.map(_without(axis), argument)
            for argument, axis in zip(arguments, in_axes, strict=True)
        ]
        return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, out_axis), function(*own))

    alone.__name__ = getattr(function, "func", function).__name__  # names the program in profiles
    return alone


def _without(axis: int) -> Callable[[jax.Array], jax.Array]:
    return lambda leaf: jnp.squeeze(leaf, axis)
