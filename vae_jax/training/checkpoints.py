"""Checkpoints: Orbax for the arrays, JSON for what they mean, SHA-256 against silent damage.

A checkpoint directory holds one folder per step (Orbax: `state` arrays, `metadata` JSON with the
config and the feature statistics), `sha256-<step>.json` that seals it, and the training metrics.
A step is read back before it is sealed. Orbax reads a flipped bit without complaint, so a step is
verified against its seal before it is restored; one that fails is passed over for the one before,
and training moves it to `damaged/`. Files that others leave in these folders do not count.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from vae_jax.errors import UserError
from vae_jax.parallel import processes
from vae_jax.storage import files
from vae_jax.training import tensorstore_leaks
from vae_jax.training.literal_paths import literal

COMPLETE = "complete.json"  # written when training has ended: its last step, the log's hash
DAMAGED = "damaged"  # a folder of steps that failed their seal
BEST_METRIC = "eval/loss"
# What desktops and file servers leave in folders.
_OF_OTHERS = re.compile(r"\.|Thumbs\.db|desktop\.ini", re.IGNORECASE)


class NoneSound(UserError):
    """A folder has no checkpoint that can be used."""


class Checkpoints:
    """Saves training states asynchronously; keeps the latest two and the best.

    Parameters
    ----------
    directory
        Where the steps are kept. Those that fail their seal are moved aside, with a warning.
    """

    def __init__(self, directory: Path) -> None:
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as policies

        tensorstore_leaks.avoid()
        self.directory = directory.absolute()
        self._ocp = ocp
        if processes.is_first():
            self.directory.mkdir(parents=True, exist_ok=True)
            move_damaged(directory)  # first, since Orbax reads the metrics of every step
        processes.wait_for_all("checkpoints")
        self._open = contextlib.ExitStack()
        best = policies.BestN(get_metric_fn=_best_metric, reverse=True, n=1)
        self._manager = ocp.CheckpointManager(
            self._open.enter_context(literal(self.directory)),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(2), best]),
                best_fn=_best_metric,  # without it, the metrics are not written
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
        )

    def save(
        self, step: int, state: Any, metadata: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Start saving a state; returns before it is written."""
        args = self._ocp.args.Composite(
            state=self._ocp.args.StandardSave(state),
            metadata=self._ocp.args.JsonSave(dict(metadata)),
        )
        with _storage_errors(self.directory):
            self._manager.save(step, args=args, metrics=dict(metrics), force=True)

    def restore_latest(self, abstract_state: Any) -> tuple[int, Any] | None:
        """Return the latest step and its state, placed as `abstract_state` says."""
        step = self._manager.latest_step()
        if step is None:
            return None
        args = self._ocp.args.Composite(state=self._ocp.args.StandardRestore(abstract_state))
        return step, self._manager.restore(step, args=args)["state"]

    def close(self) -> None:
        """Wait until everything is written and sealed."""
        with _storage_errors(self.directory):
            self._manager.wait_until_finished()
            self._seal()
            self._manager.close()
        self._open.close()

    def _seal(self) -> None:
        """Read back and hash finished steps without a seal; drop the seals of deleted steps."""
        if not processes.is_first():
            return
        for step in steps_in(self.directory):
            if not _seal_path(self.directory, step).exists():
                _restore(self.directory, step)
                hashes = _hashes(self.directory, step)
                files.write_sealed_json(_seal_path(self.directory, step), hashes)
        _remove_stale_seals(self.directory)


def steps_in(directory: Path) -> list[int]:
    """Return the finished steps in a checkpoint directory, ascending."""
    if not directory.is_dir():
        return []
    return sorted(
        int(path.name)
        for path in directory.iterdir()
        if re.fullmatch("0|[1-9][0-9]*", path.name) and path.is_dir()
    )


def damage(directory: Path, step: int) -> str | None:
    """Say what is wrong with a step, or None if all its files match their seal.

    Raises
    ------
    UserError
        If a file cannot be read, which is no damage.
    """
    seal = _seal_path(directory, step)
    if not seal.exists():
        return "it was never sealed (the run was killed while writing it)"
    try:
        expected, found = files.read_sealed_json(seal), _files(directory, step)
        for name in sorted(expected):
            if _OF_OTHERS.match(Path(name).name):
                continue
            if name not in found or files.sha256(found[name]) != expected[name]:
                return f"its file {name} is damaged or missing"
    except (UserError, FileNotFoundError) as error:
        return str(error)
    except OSError as error:
        raise UserError(
            f"the checkpoint {directory / str(step)} cannot be read ({error.strerror}: "
            f"{error.filename}): mend that, and run again."
        ) from error
    return None


def move_damaged(directory: Path) -> None:
    """Move aside the steps that fail their seal; training continues from those that are left."""
    for step in steps_in(directory):
        if problem := damage(directory, step):
            aside, number = directory / DAMAGED / str(step), 1
            while aside.exists():
                number += 1
                aside = aside.with_name(f"{step}-{number}")
            aside.parent.mkdir(exist_ok=True)
            (directory / str(step)).rename(aside)
            logging.warning("checkpoint %s/%d is moved to %s: %s", directory, step, aside, problem)
    _remove_stale_seals(directory)


def has_ended(directory: Path) -> bool:
    """Say whether training has ended here, whatever has become of its checkpoints since."""
    steps = steps_in(directory)
    try:
        ended = steps and files.read_sealed_json(directory / COMPLETE)["step"] == steps[-1]
    except (FileNotFoundError, UserError):
        return False
    return bool(ended)


def is_complete(directory: Path) -> bool:
    """Say whether training has ended here, and all that it left is still sound."""
    steps = steps_in(directory)
    return has_ended(directory) and all(damage(directory, step) is None for step in steps)


def seal(directory: Path, step: int) -> str:
    """Return a step's fingerprint."""
    return files.fingerprint(files.read_sealed_json(_seal_path(directory, step)))


def best_step(directory: Path) -> int:
    """Return the sound step with the lowest validation loss, or the latest if none has one.

    Raises
    ------
    NoneSound
        If the directory has no sound checkpoint.
    UserError
        If one cannot be read.
    """
    candidates = []
    for step in steps_in(directory):
        problem = damage(directory, step)
        if problem:
            logging.warning("checkpoint %s/%d is passed over: %s", directory, step, problem)
            continue
        candidates.append((_metrics(directory, step).get(BEST_METRIC, float("inf")), -step))
    if not candidates:
        raise NoneSound(
            f"{directory} holds no sound checkpoint: name a folder that training wrote with "
            "--checkpoint, or run --stage=train first."
        )
    return -min(candidates)[1]


def best_model(directory: Path, step: int, num_models: int) -> int:
    """Return which of the models that were trained together has the lowest loss at a step."""
    metrics = _metrics(directory, step)
    losses = [metrics.get(f"{BEST_METRIC}_{i}", float("inf")) for i in range(num_models)]
    return losses.index(min(losses))


def read_metadata(directory: Path, step: int) -> dict[str, Any]:
    """Return what was saved beside the arrays, without importing Orbax."""
    path = directory / str(step) / "metadata" / "metadata"
    try:
        metadata = files.read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: name another checkpoint, or train again.") from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("config"), dict):
        raise UserError(f"{path} describes no model: name another checkpoint, or train again.")
    return metadata


def restore_params(directory: Path, step: int) -> Any:
    """Restore the parameters alone, as numpy arrays; nothing else is read."""
    return _restore(directory, step, "params")["params"]


def _restore(directory: Path, step: int, *names: str) -> dict[str, Any]:
    """Restore the named parts of a state, or all of it, as numpy arrays."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    handler = ocp.PyTreeCheckpointHandler()
    with literal(directory / str(step) / "state") as path:
        stored = handler.metadata(path).tree
        item = {name: stored[name] for name in names or stored}
        arrays = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        args = ocp.args.PyTreeRestore(item=item, restore_args=arrays, partial_restore=True)
        return handler.restore(path, args=args)


@contextlib.contextmanager
def _storage_errors(directory: Path) -> Iterator[None]:
    """Say in a sentence that writing failed: Orbax raises errors of many kinds, pages long.

    The step that it was writing is removed, which on a full disk makes room for other runs.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        for unfinished in directory.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(unfinished, ignore_errors=True)
        system = re.search(r"os_error_code='(\d+)'", str(error))
        said = os.strerror(int(system[1])) if system else str(error)
        reason = said.partition("\n")[0][:300]
        raise UserError(
            f"cannot write a checkpoint into {directory} ({reason}): run again when that is "
            "mended; training continues from the checkpoint before."
        ) from error


def _metrics(directory: Path, step: int) -> dict[str, float]:
    """Return a step's evaluation; it is empty if the step was saved in a hurry."""
    path = directory / str(step) / "metrics" / "metrics"
    return files.read_json(path) if path.exists() else {}


def _best_metric(metrics: Mapping[str, float]) -> float:
    return metrics[BEST_METRIC]


def _remove_stale_seals(directory: Path) -> None:
    """Remove the seals of deleted steps, which a new step of that number would not match."""
    stale = set(directory.glob("sha256-*.json"))
    for seal in stale - {_seal_path(directory, step) for step in steps_in(directory)}:
        seal.unlink(missing_ok=True)


def _seal_path(directory: Path, step: int) -> Path:
    return directory / f"sha256-{step}.json"


def _hashes(directory: Path, step: int) -> dict[str, str]:
    return {name: files.sha256(path) for name, path in _files(directory, step).items()}


def _files(directory: Path, step: int) -> dict[str, Path]:
    """Return a step's files by their names in it; `rglob` would pass over what it cannot list."""
    folder, paths = directory / str(step), []
    for parent, _, names in os.walk(folder, onerror=_raise):
        paths += [Path(parent, name) for name in names]
    return {str(path.relative_to(folder)): path for path in sorted(paths) if path.is_file()}


def _raise(error: OSError) -> None:
    raise error
