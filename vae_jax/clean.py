"""Lists the runs, feature records and checkpoints of a project, and deletes what no run uses.

python -m vae_jax.clean [--results=results] [--data_dir=data] [--checkpoint_dir=checkpoints]
    [--delete]

Records and checkpoints are shared between runs. Each is listed with its size and the runs that
refer to it by their `run.json`. Nothing is deleted without --delete.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from vae_jax import process
from vae_jax.records import layout
from vae_jax.run import RUN, made_with
from vae_jax.storage import files


@dataclass(frozen=True)
class Folder:
    """One folder of records or of checkpoints.

    Attributes
    ----------
    size
        Bytes of all its files.
    runs
        The results folders that refer to it.
    """

    path: Path
    size: int
    runs: list[Path]


def find(results: Path, data_dir: Path, checkpoint_dir: Path) -> tuple[list[Path], list[Folder]]:
    """Return the results folders, and the folders of records and checkpoints."""
    runs = sorted(path.parent for path in results.rglob(RUN))
    users: dict[Path, list[Path]] = {}
    for run in runs:
        for used in made_with(run):
            users.setdefault(used, []).append(run)
    kept = [*_folders(data_dir / "records"), *_folders(checkpoint_dir)]
    ours = [path for path in kept if _is_ours(path)]
    return runs, [Folder(path, _size(path), users.get(path.resolve(), [])) for path in ours]


def main(argv: Sequence[str]) -> None:
    """List everything; with --delete, delete what no run refers to."""
    del argv
    given = flags.FLAGS
    places = Path(given.results), Path(given.data_dir), Path(given.checkpoint_dir)
    runs, folders = find(*places)
    lines = [(_size(run), f"{run}/", "run") for run in runs]
    for one in folders:
        users = ", ".join(map(str, one.runs))
        lines.append((one.size, f"{one.path}/", f"used by {users}" if users else "unused"))
    width = max((len(name) for _, name, _ in lines), default=0)
    for size, name, state in lines:
        print(f"{size / 1e6:10.1f} MB  {name:<{width}}  {state}")
    unused = [one for one in folders if not one.runs]
    total = f"{len(unused)} unused folders, {sum(one.size for one in unused) / 1e6:.1f} MB"
    if not given.delete:
        print(f"{total}; --delete deletes them. Runs outside {given.results}/ do not count.")
        return
    for one in unused:
        with files.lock(one.path):
            shutil.rmtree(one.path)
    print(f"deleted {total}.")


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*") if path.is_dir() and not path.is_symlink())


def _is_ours(folder: Path) -> bool:
    """Say whether a folder holds shards of records or sealed checkpoints, whole or in part."""
    names = (layout.INDEX, "shard-*.json", "sha256-*.json", "complete.json")
    return any(any(folder.glob(name)) for name in names)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    flags.DEFINE_string("results", "results", "Folder in which to look for runs.")
    flags.DEFINE_string("data_dir", "data", "Folder whose records/ are listed.")
    flags.DEFINE_string("checkpoint_dir", "checkpoints", "Folder of checkpoints.")
    flags.DEFINE_bool("delete", False, "Delete the records and checkpoints that no run uses.")
    process.run_command(main)
