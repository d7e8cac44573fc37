"""Times the whole main job of each preset, from files to plots, on collections of some sizes.

python -m benchmarks.configs --manifest=PATH/metadata.csv [--tracks=100,1000] [--configs=track,mlp]

A collection of another size repeats the manifest's tracks, or takes the first of them. Nothing is
kept from one run to the next, compiled programs included. Let nothing else run meanwhile.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import machine, run_command
from vae_jax import manifest
from vae_jax.storage import files

CONFIGS = "track,mlp,conv,hybrid,lyrics,demo"


def write_manifest(source: str, count: int, path: Path) -> None:
    """Write a manifest of so many tracks, those of another one in turn, with ids of their own."""
    tracks = manifest.read(source)
    columns = [name for name in tracks.columns if name not in ("id", "audio_path")]
    rows = []
    for i, row in zip(range(count), itertools.cycle(range(len(tracks))), strict=False):
        cells = {name: tracks.columns[name][row] for name in columns}
        rows.append({"id": f"track-{i}", "audio_path": tracks[row].audio_path or "", **cells})
    files.write_csv(path, ("id", "audio_path", *columns), rows)


def seconds(config: str, folder: Path) -> float:
    """Return how long a config takes with the manifest in a folder."""
    fresh = ["env", "--unset=JAX_COMPILATION_CACHE_DIR", f"XDG_CACHE_HOME={folder / 'cache'}"]
    job = [sys.executable, "-m", "vae_jax.main", f"--config={config}", "--outdir=results"]
    taken, _, status, output = run_command([*fresh, *job, "--config.manifest=metadata.csv"], folder)
    if status:
        raise RuntimeError(output[-2000:])
    return taken


def main() -> None:
    """Print the table, as Markdown, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--tracks", default="100,1000")
    parser.add_argument("--configs", default=CONFIGS)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.tracks.split(",")]
    titles = "".join(f" {size:,} tracks |" for size in sizes)
    print(f"{machine()}\n\n| config |{titles}")
    print("|---" * (1 + len(sizes)) + "|", flush=True)
    for config in arguments.configs.split(","):
        print(f"| `{config}` |", end="", flush=True)
        for size in sizes:
            with tempfile.TemporaryDirectory() as name:
                write_manifest(arguments.manifest, size, Path(name) / "metadata.csv")
                print(f" {seconds(config, Path(name)):.0f} s |", end="", flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
