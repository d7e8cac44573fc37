"""Rehearses a large collection: the real stages on synthetic records of any number of tracks.

python -m benchmarks.scale --tracks=100000,1000000 [--streamed] [--outdir=DIR] [--out=FILE]

Feature vectors are written without audio; then the main job's own command trains for one epoch,
embeds, clusters and draws. The manifest and ids are in memory, and so are features and latents
unless they are streamed (--config.train.resident_gib=0, --config.embed.format=sharded). The memory
counts the pages of records that the kernel has mapped, and takes back when it needs them.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import report, synthetic
from benchmarks.measure import Line, machine, run_command, table
from benchmarks.startup import MAIN, write_manifest

STAGES = ("train", "embed", "cluster", "visualize")
STREAMED = ("--config.train.resident_gib=0", "--config.embed.format=sharded")
SHARD_SIZE = 8192  # tracks
BATCH_SIZE = 1024
CONFIG = """
from vae_jax.config import get_config as get_defaults

def get_config():
    config = get_defaults()
    config.name, config.manifest = "scale", "metadata.csv"
    config.feature.shard_size, config.baselines = {shard_size}, ()
    config.train.batch_size, config.train.num_steps = {batch_size}, {num_steps}
    config.train.eval_every = config.train.checkpoint_every = {num_steps}
    config.cluster.num_seeds = 1
    return config
"""


def rehearse(
    folder: Path, tracks: int, stages: Sequence[str], arguments: Sequence[str] = ()
) -> Iterator[Line]:
    """Yield the time and memory of writing records and of each stage, with main's arguments."""
    batch_size = min(BATCH_SIZE, tracks)
    config = CONFIG.format(
        shard_size=SHARD_SIZE, batch_size=batch_size, num_steps=-(-tracks // batch_size)
    )
    (folder / "config.py").write_text(config)
    write_manifest(folder / "metadata.csv", tracks)
    # The benchmarks are not installed: from another folder they are found by this path alone.
    python = ["env", f"PYTHONPATH={Path(__file__).parents[1]}", sys.executable]
    write = [*python, "-m", "benchmarks.scale", f"--tracks={tracks}", "--only_records"]
    yield _line(f"records: {tracks:,} tracks written", write, folder)
    for stage in stages:
        command = [*MAIN, "--config=config.py", "--outdir=out", f"--stage={stage}", *arguments]
        yield _line(f"{stage}: {tracks:,} tracks", command, folder)


def write_records(folder: Path, tracks: int) -> None:
    """Write records where the stages look for them."""
    import os
    import runpy

    from vae_jax.stages.runner import Run

    os.chdir(folder)
    config = runpy.run_path("config.py")["get_config"]()
    directory = Run(config, Path("out")).records_dir
    synthetic.write_records(directory, config.feature.to_dict(), tracks)


def _line(what: str, command: list[str], folder: Path) -> Line:
    seconds, memory, status, output = run_command(command, folder)
    if status:
        raise RuntimeError(output[-2000:])
    return Line(what, seconds, "s", memory=memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracks", default="100000,1000000", help="numbers, with commas between")
    parser.add_argument("--outdir", type=Path, help="default: a folder that is removed at the end")
    parser.add_argument("--out", type=Path, default=report.OUT)
    parser.add_argument("--only_records", action="store_true", help="write into this folder")
    parser.add_argument("--streamed", action="store_true", help="features and latents")
    arguments = parser.parse_args()
    numbers = [int(number) for number in arguments.tracks.split(",")]
    if arguments.only_records:
        write_records(Path.cwd(), numbers[0])
        return
    about, lines = machine(), []
    print(about, flush=True)
    with tempfile.TemporaryDirectory() as name:
        for tracks in numbers:
            folder = (arguments.outdir or Path(name)) / str(tracks)
            folder.mkdir(parents=True, exist_ok=True)
            for line in rehearse(folder, tracks, STAGES, STREAMED if arguments.streamed else ()):
                lines.append(line)
                print("  " + " | ".join(cell for cell in line.cells() if cell), flush=True)
    text = f"{__doc__.strip()}\n\n{about}\n\n{table(lines)}"
    name = "scale_streamed" if arguments.streamed else "scale"
    report.write_section(arguments.out, name, text)


if __name__ == "__main__":
    main()
