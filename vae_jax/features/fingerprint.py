"""Acoustic fingerprints, which tell whether two files hold the same recording.

Chromaprint (Lalinsky 2010, after Ke et al. 2005) describes the notes of every eighth of a second by
32 bits, whatever the format and the level. It comes with most builds of ffmpeg. What was computed
is kept in a file, so that it is computed once.
"""

import functools
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from vae_jax.console import Progress
from vae_jax.errors import UserError
from vae_jax.features import audio
from vae_jax.features.errors import AudioError, MachineError
from vae_jax.parallel.cores import num_cores
from vae_jax.storage import files

SAMPLE_RATE = 11025  # Hz; Chromaprint's own
DURATION = 120.0  # s that are compared, from the beginning
MIN_DURATION = 8.0  # s; less tells too little
BITS = 32
MAX_SHIFT = 160  # items, 20 s: how much later one of the two may begin
MAX_DIFFERENCE = 20.0  # s between the lengths of one recording and its copy, cut or not
MIN_OVERLAP = 60  # items, 7 s
MIN_VARIETY = 0.25  # of the items must differ: silence and held notes are no evidence
TIME_LIMIT = 120  # s
COMMON = 20  # tracks that have an item; one that more have says little
SHARED = 10  # items that two tracks have in common to be compared
VERSION = 1  # of what is kept


@dataclass(frozen=True)
class Print:
    """A file's fingerprint.

    Attributes
    ----------
    items
        [n] uint32; none if the file cannot be read, or is too short.
    duration
        The length of the sound in the file, in seconds.
    """

    items: np.ndarray
    duration: float


def check_installed(otherwise: str) -> None:
    """Refuse to go on without Chromaprint; `otherwise` says what can be done without it."""
    if not is_installed():
        raise UserError(
            "telling recordings apart needs an ffmpeg with Chromaprint (such as Debian's): "
            f"install one, or {otherwise}."
        )


@functools.cache
def is_installed() -> bool:
    """Say whether there is an ffmpeg with Chromaprint."""
    try:
        listed = subprocess.run(
            ["ffmpeg", "-hide_banner", "-muxers"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        listed = ""
    return " chromaprint " in listed


def of_all(paths: Mapping[str, Path], kept: Path) -> dict[str, Print]:
    """Return the fingerprints of files, by the ids of their tracks.

    Those that are in `kept`, of files with the same size and time, are not computed again. That
    file then holds all of these, but for files that the machine is to blame for.
    """
    stats = {id_: path.stat() for id_, path in paths.items()}
    states = {id_: (stat.st_size, stat.st_mtime_ns) for id_, stat in stats.items()}
    prints = {id_: one for id_, (one, state) in _read(kept).items() if states.get(id_) == state}
    missing = [id_ for id_ in paths if id_ not in prints]
    if not missing:
        return prints
    with (
        ThreadPoolExecutor(num_cores()) as pool,
        Progress("fingerprints", len(missing), "tracks") as progress,
    ):
        computed = pool.map(_try, (paths[id_] for id_ in missing))
        failed = dict[str, Exception]()
        for id_, found in zip(missing, computed, strict=True):
            if isinstance(found, Print):
                prints[id_] = found
            else:
                prints[id_], failed[id_] = Print(np.zeros(0, np.uint32), 0.0), found
            progress.update(progress.done + 1)
    for id_, reason in [*failed.items()][:1]:
        logging.warning("%d files are not compared: %s: %s", len(failed), paths[id_], reason)
    again = {id_ for id_, reason in failed.items() if isinstance(reason, MachineError)}
    _write(kept, {id_: one for id_, one in prints.items() if id_ not in again}, states)
    return prints


def _try(path: Path) -> Print | AudioError | MachineError:
    try:
        return compute(path)
    except (AudioError, MachineError) as error:
        return error


def _read(kept: Path) -> dict[str, tuple[Print, tuple[int, int]]]:
    """Return the fingerprints that are kept, with the size and time of each file."""
    if not kept.exists():
        return {}
    try:
        arrays = files.read_npz(kept)
        if arrays.pop("version") != VERSION:
            return {}
        parts = np.split(arrays["items"], np.cumsum(arrays["lengths"])[:-1])
        prints = map(Print, parts, arrays["durations"].tolist())
        states = map(tuple, arrays["states"].tolist())
        found = zip(prints, states, strict=True)
        return dict(zip(arrays["ids"].tolist(), found, strict=True))
    except (UserError, KeyError, ValueError) as error:
        logging.warning("%s is made anew: %s", kept, error)
        return {}


def _write(kept: Path, prints: Mapping[str, Print], states: Mapping[str, tuple[int, int]]) -> None:
    """Keep fingerprints with the size and time of each file."""
    if not prints:
        return
    files.write_npz(
        kept,
        version=VERSION,
        ids=np.array([*prints]),
        states=np.array([states[id_] for id_ in prints], np.int64),
        durations=np.array([one.duration for one in prints.values()]),
        lengths=np.array([len(one.items) for one in prints.values()]),
        items=np.concatenate([one.items for one in prints.values()]),
    )


def compute(path: Path) -> Print:
    """Return a file's fingerprint.

    Raises
    ------
    AudioError, MachineError
        If the file cannot be decoded, or is shorter than `MIN_DURATION`.
    """
    heard = audio.load(
        path,
        sample_rate=SAMPLE_RATE,
        duration=DURATION,
        excerpt="start",
        min_duration=MIN_DURATION,
    )
    peak = max(float(np.abs(heard.waveform).max()), 1e-9)
    samples = (heard.waveform * (0.9 * 2**15 / peak)).astype("<i2")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "s16le", "-ac", "1"]
    command += ["-ar", str(SAMPLE_RATE), "-i", "pipe:0", "-f", "chromaprint", "-fp_format", "raw"]
    done = subprocess.run(
        [*command, "pipe:1"],
        input=samples.tobytes(),
        capture_output=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    items = np.frombuffer(done.stdout[: len(done.stdout) // 4 * 4], "<u4")
    return Print(items, heard.duration)


def pairs_in_common(prints: Sequence[Print]) -> set[tuple[int, int]]:
    """Return the pairs of fingerprints that have `SHARED` rare items or more in common."""
    unique = [np.unique(one.items) for one in prints]
    rows = np.repeat(np.arange(len(unique)), [len(items) for items in unique])
    items = np.concatenate([*unique, np.zeros(0, np.uint32)])
    order = np.argsort(items, kind="stable")
    items, rows = items[order], rows[order]
    _, number, counts = np.unique(items, return_inverse=True, return_counts=True)
    rare = counts[number] <= COMMON
    items, rows = items[rare], rows[rare]
    codes = [np.zeros(0, np.int64)]
    for step in range(1, COMMON):
        both = items[step:] == items[:-step]
        codes.append(rows[:-step][both] * len(unique) + rows[step:][both])
    found, times = np.unique(np.concatenate(codes), return_counts=True)
    first, second = np.divmod(found[times >= SHARED], max(len(unique), 1))
    return {*zip(first.tolist(), second.tolist(), strict=True)}


def likeness(first: Print, second: Print) -> float:
    """Return the similarity of two files, 0 if their lengths are not those of one recording."""
    if abs(first.duration - second.duration) > MAX_DIFFERENCE:
        return 0.0
    return similarity(first.items, second.items)


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of equal bits where two fingerprints, [n] and [m], agree best.

    Unrelated recordings have about half of their bits in common. 0 if there is too little to judge.
    """
    if min(_variety(first), _variety(second)) < MIN_VARIETY:
        return 0.0
    n, m = len(first), len(second)
    agreement = _signs(first)[::-1] @ _signs(second).T  # [n, m], from -32 to 32
    skewed = np.zeros((n, m + n), np.float32)
    skewed[:, :m] = agreement
    sums = skewed.ravel()[: n * (m + n - 1)].reshape(n, m + n - 1).sum(axis=0)
    shifts = np.arange(m + n - 1) - (n - 1)
    overlaps = np.minimum(n, m - shifts) - np.maximum(0, -shifts)
    allowed = (np.abs(shifts) <= MAX_SHIFT) & (overlaps >= max(MIN_OVERLAP, min(n, m) // 2))
    if not allowed.any():
        return 0.0
    return float(0.5 + 0.5 * (sums[allowed] / (BITS * overlaps[allowed])).max())


def _variety(fingerprint: np.ndarray) -> float:
    return len(np.unique(fingerprint)) / max(len(fingerprint), 1)


def _signs(fingerprint: np.ndarray) -> np.ndarray:
    """Return bits as -1 and 1, [n, 32] float32."""
    bits = np.unpackbits(np.ascontiguousarray(fingerprint, "<u4").view(np.uint8))
    return bits.reshape(-1, BITS).astype(np.float32) * 2 - 1
