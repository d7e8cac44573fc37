"""Measures whether fingerprints find re-encoded recordings, and join unrelated ones.

python -m benchmarks.duplicates --manifest=PATH/metadata.csv [--manifest=...] [--tracks=20]

Some tracks of each collection are encoded again in every form of `FORMS`, and each copy is compared
with its original. Then all tracks are compared with all others: none should be the same.
"""

import argparse
import itertools
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vae_jax import manifest
from vae_jax.collection.duplicates import SAME_RECORDING
from vae_jax.console import Progress
from vae_jax.features import fingerprint
from vae_jax.features.errors import AudioError, MachineError
from vae_jax.features.fingerprint import Print
from vae_jax.parallel.cores import num_cores

FORMS = {  # ffmpeg's arguments, and the suffix
    **{f"mp3, {rate} kbit/s": (f"-c:a libmp3lame -b:a {rate}k", ".mp3") for rate in (64, 128, 192)},
    **{f"ogg, quality {q}": (f"-c:a libvorbis -q:a {q}", ".ogg") for q in (1, 4, 7)},
    **{f"opus, {rate} kbit/s": (f"-c:a libopus -b:a {rate}k", ".opus") for rate in (32, 64, 128)},
    **{f"aac, {rate} kbit/s": (f"-c:a aac -b:a {rate}k", ".m4a") for rate in (64, 128, 192)},
    **{f"{gain:+d} dB": (f"-filter:a volume={gain}dB", ".wav") for gain in (9, -9)},
    "without the first 2 s": ("-filter:a atrim=start=2", ".wav"),
    "at 16 kHz": ("-ar 16000", ".wav"),
}


def copies(paths: Sequence[Path], form: str, folder: Path) -> Iterator[float]:
    """Yield the similarity of each track and its copy."""
    arguments, suffix = FORMS[form]
    target = folder / f"copy{suffix}"
    for path in paths:
        encode = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", f"file:{path}"]
        subprocess.run([*encode, *arguments.split(), f"file:{target}"], check=True)
        yield fingerprint.likeness(fingerprint.compute(path), fingerprint.compute(target))


def fingerprints(paths: Sequence[Path]) -> list[Print]:
    """Return the fingerprints of the tracks that have one."""

    def one(path: Path) -> Print | None:
        try:
            return fingerprint.compute(path)
        except (AudioError, MachineError):
            return None

    with ThreadPoolExecutor(num_cores()) as pool:
        return [found for found in pool.map(one, paths) if found is not None]


def main() -> None:
    """Print both, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", action="append", required=True)
    parser.add_argument("--tracks", type=int, default=20, help="of each collection are encoded")
    arguments = parser.parse_args()
    fingerprint.check_installed("measure nothing")
    collections = map(manifest.read, arguments.manifest)
    paths = [[track.audio_path for track in some if track.audio_path] for some in collections]
    chosen = [
        some[i]
        for some in paths
        for i in np.linspace(0, len(some) - 1, min(arguments.tracks, len(some))).astype(int)
    ]
    print("| copy | found | lowest similarity |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            found = np.array([*copies(chosen, form, Path(folder))])
            share = f"{(found >= SAME_RECORDING).sum()} of {len(found)}"
            print(f"| {form} | {share} | {found.min():.3f} |", flush=True)
    known = fingerprints([*itertools.chain.from_iterable(paths)])
    pairs, highest, joined = len(known) * (len(known) - 1) // 2, 0.0, 0
    with Progress("compare", pairs, "pairs") as progress:
        for i, first in enumerate(known):
            likeness = [fingerprint.similarity(first.items, other.items) for other in known[:i]]
            highest = max([highest, *likeness])
            joined += sum(value >= SAME_RECORDING for value in likeness)
            progress.update(progress.done + i)
    print(f"\n{joined} of {pairs:,} pairs of different tracks are joined; highest {highest:.3f}.")


if __name__ == "__main__":
    main()
