"""What each model says of itself, read without importing it: Flax takes seconds to import.

A model is a module of this package with a `DECLARES`, which is a literal, and a `build`.
"""

import ast
import functools
import pkgutil
from dataclasses import dataclass
from pathlib import Path

from vae_jax import models


@dataclass(frozen=True)
class Declared:
    """What a model says of itself.

    Attributes
    ----------
    title
        Its name in reports and plots.
    features
        What `config.feature.name` may be.
    sees
        "vector" (several are fused into one), "segment" (one at random in training), "segments"
        (a track's, as a set, and their descriptions) or "modalities" (several, side by side).
    refuses
        What it cannot do: "condition", "deterministic", "ae".
    """

    title: str
    features: tuple[str, ...]
    sees: str
    refuses: tuple[str, ...] = ()


@functools.cache
def models_declared() -> dict[str, Declared]:
    """Return all models by name, which is that of their module."""
    found = {}
    for module in sorted(pkgutil.iter_modules(models.__path__), key=lambda module: module.name):
        path = Path(module.module_finder.path, f"{module.name}.py")  # type: ignore[union-attr]
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DECLARES":
                found[module.name] = Declared(**ast.literal_eval(node.value))
    return found
