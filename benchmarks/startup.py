"""Start-up: the command line before it has anything to do, and what training compiles first.

All in processes of their own. Instructions are those of XLA's optimised programs.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import synthetic
from benchmarks.measure import Line, run_command
from vae_jax.storage import files

HEAVY = ("flax", "librosa", "jax", "tensorflow")  # that clustering has no use for
MAIN = [sys.executable, "-m", "vae_jax.main"]
CONFIGS = ("mlp", "conv", "track", "track:conv2d")
COMPILED = re.compile(r"Finished XLA compilation of .* in ([0-9.]+) sec")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    tracks: int = 100
    repeats: int = 9
    configs: tuple[str, ...] = CONFIGS


TINY = Sizes(tracks=30, repeats=1, configs=("mlp",))


def measure(sizes: Sizes) -> Iterator[Line]:
    """Yield the lines of this topic."""
    with tempfile.TemporaryDirectory() as name:
        yield _help(Path(name), sizes.repeats)
        yield from _cluster(Path(name), sizes.tracks)
        _run([sys.executable, "-m", "vae_jax.demo", "--outdir=demo"], Path(name))
        for config in sizes.configs:
            yield from _compile(Path(name), config)


def _help(folder: Path, repeats: int) -> Line:
    beyond = [
        _seconds([*MAIN, "--help"]) - _seconds([sys.executable, "-c", ""]) for _ in range(repeats)
    ]
    _, memory, _, _ = run_command([*MAIN, "--help"], folder)
    what, goals = "--help, beyond Python's own start", {"ours": 0.5}
    return Line(what, float(np.median(beyond)), "s", memory=memory, goals=goals)


def _cluster(folder: Path, tracks: int) -> Iterator[Line]:
    """Cluster few tracks, and look at what was imported for it."""
    arguments = clustering_job(folder, tracks, 4)
    seconds, memory, status, output = run_command(
        [sys.executable, "-X", "importtime", "-m", "vae_jax.main", *arguments, "--stage=cluster"],
        folder,
    )
    if status:
        raise RuntimeError(output[-2000:])
    imported = {line.rsplit("|", 1)[-1].strip() for line in output.splitlines() if "|" in line}
    found = [name for name in HEAVY if name in imported]
    what = f"--stage=cluster of {tracks} tracks"
    yield Line(what, seconds, "s", memory=memory)
    what = f"{', '.join(HEAVY)} imported by --stage=cluster" + (f": {found}" if found else "")
    yield Line(what, len(found), "modules", goals={"ours": 0})


def _compile(folder: Path, config: str) -> Iterator[Line]:
    """Train for two steps, twice: what is compiled first is then taken from the cache."""
    command = [*MAIN, f"--config={config}", "--config.manifest=demo/metadata.csv"]
    command += ["--config.train.num_steps=2", "--config.train.batch_size=8"]
    _run([*command, "--stage=features"], folder)
    dump = f"dump-{config}"
    flags = f"XLA_FLAGS=--xla_dump_to={dump} --xla_dump_hlo_as_text"
    for turn, what in enumerate(("compiled", "from the cache")):
        environ = ["env", "JAX_LOG_COMPILES=1", flags, f"XDG_CACHE_HOME={folder / 'cache'}"]
        environ += ["--unset=JAX_COMPILATION_CACHE_DIR"]
        output = _run(
            [*environ, *command, "--stage=train", f"--config.checkpoint_dir=trained-{turn}"], folder
        )
        seconds = [float(value) for value in COMPILED.findall(output)]
        if turn == 0:
            programs = [path.read_text() for path in (folder / dump).glob("*after_opt*.txt")]
            instructions = sum(text.count(" = ") for text in programs)
        size = f"{len(seconds)} programs, {instructions:,} instructions"
        yield Line(f"training with `{config}`: {size}, {what}", sum(seconds), "s")


def _run(command: list[str], folder: Path) -> str:
    """Run a command in a folder; return what it printed."""
    _, _, status, output = run_command(command, folder)
    if status:
        raise RuntimeError(output[-2000:])
    return output


def clustering_job(folder: Path, tracks: int, latent_dim: int, raw_dim: int = 4) -> list[str]:
    """Write what the stages from clustering on read; return main's arguments for it."""
    rng = np.random.default_rng(0)
    groups = np.arange(tracks) % synthetic.NUM_CLUSTERS
    ids = np.char.add("track-", np.arange(tracks).astype(str))
    spaces = {"latents.npz": latent_dim, "baselines/raw.npz": raw_dim}
    for name, size in spaces.items():
        means = rng.normal(0, 1, (synthetic.NUM_CLUSTERS, size))
        latents = (means[groups] + rng.standard_normal((tracks, size))).astype(np.float32)
        files.write_npz(folder / "out" / name, ids=ids, latents=latents)
    write_manifest(folder / "metadata.csv", tracks)
    (folder / "config.py").write_text("from vae_jax.config import get_config  # noqa: F401\n")
    return [
        *("--config=config.py", "--outdir=out", "--config.manifest=metadata.csv"),
        *("--config.baselines=()", "--config.cluster.num_seeds=1"),
    ]


def write_manifest(path: Path, tracks: int) -> None:
    """Write a manifest of tracks without audio, with their groups for labels."""
    rows = ({"id": f"track-{i}", "label": synthetic.label(i)} for i in range(tracks))
    files.write_csv(path, ("id", "label"), rows)


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    return time.perf_counter() - started
