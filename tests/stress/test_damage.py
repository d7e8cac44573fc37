"""Damaged files are noticed before they are used, and redone or named; nothing is made of them."""

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stress import jobs
from tests.stress.jobs import LONG, SHORT, outcome, run

pytestmark = pytest.mark.slow

CASES = 320 if LONG else 12 if SHORT else 2
RUNS = 3  # at most, until everything is whole again


def flip(path: Path, others: list[Path], rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, others: list[Path], rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def delete(path: Path, others: list[Path], rng: random.Random) -> None:
    path.unlink()


def double(path: Path, others: list[Path], rng: random.Random) -> None:
    path.write_bytes(2 * path.read_bytes())


def overwrite(path: Path, others: list[Path], rng: random.Random) -> None:
    """Put another file of the same kind in its place, or any other where there is none."""
    alike = [other for other in others if other != path and other.suffix[:6] == path.suffix[:6]]
    shutil.copyfile(rng.choice(alike or [other for other in others if other != path]), path)


DAMAGES: list[Callable[[Path, list[Path], random.Random], None]] = [
    *(flip, truncate, delete, double, overwrite)
]


def kind(path: Path) -> str:
    """Group files that are alike, so that rare kinds are damaged as often as common ones."""
    return re.sub(r"[0-9a-f]{32}|\d+", "#", "/".join(path.parts[-3:]))


@pytest.mark.parametrize("in_silence", [False, True], ids=["touched", "rotten"])
@pytest.mark.parametrize("seed", range(CASES // 2))
def test_a_damaged_file_is_redone_or_named(finished, undisturbed, seed, in_silence):
    rng, folder = random.Random(f"{seed} {in_silence}"), finished
    paths = [path for path in jobs.damageable(folder) if path.stat().st_size]
    kinds = sorted({kind(path) for path in paths})
    chosen = kinds[seed % len(kinds)] if LONG else rng.choice(kinds)
    path = rng.choice([path for path in paths if kind(path) == chosen])
    damage = DAMAGES[seed // len(kinds) % len(DAMAGES)] if LONG else rng.choice(DAMAGES)
    before, state = path.read_bytes(), path.stat()
    damage(path, paths, rng)
    if in_silence:  # a disk that rots changes no times; then whoever reads the file must notice
        if path.exists():
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        remove_what_was_made_from(path, folder)
    what = f"{damage.__name__} {path.relative_to(folder)}"
    said = ""
    for _ in range(RUNS):
        ended = run(folder)
        said += ended.err
        assert ended.code == 0 or ended.is_one_sentence, f"{what}\n{said}"
        if ended.code == 0:
            break
    assert ended.code == 0 or path.name in said, f"{what}\n{said}"
    found = outcome(folder) if ended.code == 0 else undisturbed
    differs = {name for name in undisturbed if found.get(name) != undisturbed[name]}
    # A message names what cannot be computed again: the best checkpoint, earlier rows, log lines.
    assert not differs or path.name in said, f"{what}: {differs}\n{said}"
    is_same = path.exists() and path.read_bytes() == before
    print(f"{'named' if differs or ended.code else 'repaired'}{' equal' * is_same}: {what}")


def remove_what_was_made_from(path: Path, folder: Path) -> None:
    """Make the next run read a file that it would otherwise have no need of."""
    if "records" in path.parts:
        shutil.rmtree(folder / "checkpoints")
    elif "checkpoints" in path.parts:
        (folder / "results" / "latents.npz").unlink()
