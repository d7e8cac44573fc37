"""Keeps Orbax from asking TensorStore for JSON, whose strings TensorStore never frees.

With every checkpoint Orbax logs TensorStore's metrics, 50 KB, and asks where each array goes, 10 KB
for a small model. This was seen with TensorStore 0.1.86 and Orbax 0.12.8. The module can go when a
loop over `tensorstore.KvStore.Spec({"driver": "file", "path": "/tmp/"}).to_json()` leaves the
process's memory as it was.
"""

import ast
import json
from typing import Any


def avoid() -> None:
    """Replace the two functions that leak, in the whole process, by others that do not."""
    import tensorstore

    tensorstore.experimental_collect_matching_metrics = _no_metrics
    spec: Any = tensorstore.KvStore.Spec
    spec.to_json = _to_json


def _no_metrics(*args: Any, **kwargs: Any) -> list[Any]:
    return []


def _to_json(spec: Any) -> Any:
    """Return the JSON of a key-value store's spec, which `repr` shows as `KvStore.Spec({...})`."""
    shown = ast.literal_eval(repr(spec).removeprefix("KvStore.Spec"))  # a character for each byte
    return json.loads(json.dumps(shown, ensure_ascii=False).encode("latin-1"))
