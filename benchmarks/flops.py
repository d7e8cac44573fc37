"""Counts the operations of matrix products and convolutions, without a backend's help."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def count(function: Callable[..., Any], *arguments: Any) -> int:
    """Return the FLOPs of a function's matrix products and convolutions, as it is written.

    A multiplication and its addition are two. What is done element by element is not counted, nor
    that a loop without a fixed length repeats.
    """
    return _of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, shapes = equation.primitive.name, [v.aval.shape for v in equation.invars]
        outputs = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * outputs * math.prod(shapes[0][axis] for axis in contracted)
        elif name == "conv_general_dilated":
            output_features = equation.params["dimension_numbers"].rhs_spec[0]
            total += 2 * outputs * math.prod(shapes[1]) // shapes[1][output_features]
        times = equation.params.get("length", 1) if name == "scan" else 1
        total += times * sum(map(_of, _inner(equation.params.values())))
    return total


def _inner(values: Any) -> Iterator[Any]:
    """Yield the programs inside a program's parameters; all branches of a condition count."""
    for value in values:
        if isinstance(value, tuple | list):
            yield from _inner(value)
        elif hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield from _inner([value.jaxpr])
