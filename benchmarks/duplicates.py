"""Measures whether fingerprints find re-encoded recordings, and join unrelated ones.

    python -m benchmarks.duplicates --manifest=PATH/metadata.csv [--manifest=...] [--tracks=20]
    python -m benchmarks.duplicates --manifest=PATH/metadata.csv ... --write=FOLDER
    python -m benchmarks.duplicates --check=RESULTS

Some tracks of each collection are encoded again in every form of `FORMS`, and each copy is compared
with its original. Then all tracks are compared with all others: none should be the same. The second
form leaves the copies, and FOLDER/metadata.csv of them and of all tracks. The third says what was
found among them, after `vae-jax run` and `vae-jax duplicates` on that manifest.
"""

import argparse
import itertools
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import vae_jax
from vae_jax import manifest
from vae_jax.collection.duplicates import SAME_RECORDING
from vae_jax.console import Progress
from vae_jax.features import fingerprint
from vae_jax.features.errors import AudioError, MachineError
from vae_jax.features.fingerprint import Print
from vae_jax.parallel.cores import num_cores
from vae_jax.storage import files

COPY = " // "  # between a track's id and the form of its copy
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
        _encode(path, arguments, target)
        yield fingerprint.likeness(fingerprint.compute(path), fingerprint.compute(target))


def _encode(path: Path, arguments: str, target: Path) -> None:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", f"file:{path}", "-vn"]
    subprocess.run([*command, *arguments.split(), f"file:{target}"], check=True)


def write_corpus(folder: Path, collections: Sequence[manifest.Manifest], count: int) -> None:
    """Write `count` tracks of each collection in all forms, and a manifest of these and all tracks.

    The id of a copy is that of its track with the form behind it.
    """
    rows = []
    for tracks in ([track for track in some if track.audio_path] for some in collections):
        rows += [{"id": track.id, "audio_path": track.audio_path} for track in tracks]
        for i in np.linspace(0, len(tracks) - 1, min(count, len(tracks))).astype(int):
            for number, (form, (arguments, suffix)) in enumerate(FORMS.items()):
                target = folder.absolute() / f"{len(rows)}-{number}{suffix}"
                _encode(tracks[i].audio_path, arguments, target)
                rows.append({"id": f"{tracks[i].id}{COPY}{form}", "audio_path": target})
    files.write_csv(folder / "metadata.csv", ("id", "audio_path"), rows)


def check_corpus(results: Path) -> None:
    """Print how many copies `vae-jax duplicates` has put beside their tracks, and what else."""
    run = vae_jax.load(results)
    group = {id_: run.recordings.get(id_) for id_ in run.ids}
    copies = [id_ for id_ in run.ids if COPY in id_]
    missed = [id_ for id_ in copies if group[id_] is None or group[id_] != group[_track(id_)]]
    members: dict[str, set[str]] = defaultdict(set)
    for id_, number in run.recordings.items():
        members[number].add(_track(id_))
    wrong = sum(len(tracks) > 1 for tracks in members.values())
    print(f"{len(copies) - len(missed)} of {len(copies)} copies are in the group of their track.")
    print(f"{wrong} of {len(members)} groups hold different tracks.")
    print("".join(f"  missed: {id_}\n" for id_ in missed), end="")


def _track(id_: str) -> str:
    return id_.partition(COPY)[0]


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
    parser.add_argument("--manifest", action="append", default=[])
    parser.add_argument("--tracks", type=int, default=20, help="of each collection are encoded")
    parser.add_argument("--write", type=Path, help="the folder to write a corpus into")
    parser.add_argument("--check", type=Path, help="the results of a run on that corpus")
    arguments = parser.parse_args()
    if arguments.check:
        check_corpus(arguments.check)
        return
    fingerprint.check_installed("measure nothing")
    collections = [manifest.read(path) for path in arguments.manifest]
    if arguments.write:
        write_corpus(arguments.write, collections, arguments.tracks)
        return
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
