"""Whether a stage is up to date: what it was made from, and the hashes of what it wrote.

A stage leaves a marker under the outdir; `unless_up_to_date` compares it with what is there.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from vae_jax.errors import UserError
from vae_jax.run import CLUSTERING_METRICS, MARKERS, Run
from vae_jax.storage import files

_LATER = {"embed": ("cluster", "visualize"), "cluster": ("visualize",)}  # stages


def unless_up_to_date(
    run: Run, stage: str, made_from: Any, write: Callable[[], Iterable[Path]]
) -> bool:
    """Call `write` unless its outputs exist, unchanged, from the same; say whether it was called.

    `write` returns its outputs: files, or folders whose files count. Outputs of an earlier call,
    with other settings, that it does not write now are removed, unless somebody has changed them.
    So are those that later stages have made from the earlier call's.
    """
    path = marker(run.outdir, stage)
    digest = files.fingerprint(made_from)
    before = _read_marker(path)
    changed = before["outputs"].items() - _contents(before["outputs"], run.outdir).items()
    for name, _ in sorted(changed):
        logging.warning("%s is damaged, changed or missing: redoing it", run.outdir / name)
    if before["made_from"] == digest and not changed:
        return False
    if before["made_from"] != digest:
        for later in _LATER.get(stage, ()):
            _forget(run.outdir, later)
    paths = [path for path in _files_in(write()) if path.is_file()]
    contents = _contents([str(path.relative_to(run.outdir)) for path in paths], run.outdir)
    stale = {name: then for name, then in before["outputs"].items() if name not in contents}
    _remove(stale, run.outdir)
    files.write_sealed_json(path, {"made_from": digest, "outputs": contents})
    return True


def _forget(outdir: Path, stage: str) -> None:
    """Remove what a stage wrote, but for the scores, which are those of all runs."""
    path = marker(outdir, stage)
    _remove({**_read_marker(path)["outputs"], CLUSTERING_METRICS: None}, outdir)
    path.unlink(missing_ok=True)


def _remove(written: Mapping[str, str | None], outdir: Path) -> None:
    """Remove outputs whose hashes are given, unless somebody has changed them."""
    for name, content in _contents(written, outdir).items():
        if content is not None and content == written[name]:
            (outdir / name).unlink()


def marker(outdir: Path, stage: str) -> Path:
    """Return the file that says what a stage was made from, and what it wrote."""
    return outdir / MARKERS / f"{stage}.json"


def outputs(outdir: Path) -> list[str]:
    """Return the names of what the stages of the outdir's run have written."""
    markers = sorted((outdir / MARKERS).glob("*.json"))
    names = {name for path in markers for name in _read_marker(path)["outputs"]}
    return sorted(name for name in names if (outdir / name).exists())


def hashes(paths: Sequence[Path], stage: str) -> list[str]:
    """Return the hashes of files, or of those in folders, that another stage has written."""
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist: run --stage={stage} first.")
    return [files.sha256(path) for path in _files_in(paths)]


def _read_marker(path: Path) -> dict[str, Any]:
    """Return what a stage was made from, and the hashes of what it wrote; none if unknown."""
    try:
        return files.read_sealed_json(path)
    except FileNotFoundError:
        pass
    except UserError as error:
        logging.warning("%s", error)
    return {"made_from": None, "outputs": {}}


def _files_in(paths: Iterable[Path]) -> list[Path]:
    """Return the files among paths, and those in the folders among them."""
    found = (sorted(path.rglob("*")) if path.is_dir() else [path] for path in paths)
    return list(itertools.chain.from_iterable(found))


def _contents(names: Iterable[str], folder: Path) -> dict[str, str | None]:
    paths = {name: folder / name for name in names}
    return {name: files.sha256(path) if path.exists() else None for name, path in paths.items()}
