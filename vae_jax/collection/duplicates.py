"""Finds tracks of a run that are the same: the same file, or the same recording in another file.

The latents propose pairs, and fingerprints of the sound confirm them. A track joins a group only if
it is the same as every track of it: in doubt, tracks stay apart. Tracks that are merely alike, such
as versions of a song, are listed in pairs and belong to no group.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from vae_jax.collection import neighbours
from vae_jax.features import fingerprint
from vae_jax.features.errors import AudioError, MachineError
from vae_jax.parallel.cores import num_cores
from vae_jax.storage import files

if TYPE_CHECKING:
    from vae_jax.api import Results

FILE, RECORDING, ALIKE = "file", "recording", "alike"
PROPOSED = 10  # nearest tracks of each that may be the same recording
SAME_RECORDING = 0.9  # of the bits agree, or more: loops of the demo reach .82, copies begin at .95
NEAR = 0.5  # of the usual distance to the nearest track, below which two tracks are alike


@dataclass(frozen=True)
class Same:
    """One track among those that are the same, or alike.

    Attributes
    ----------
    group
        A number; tracks of one group belong together.
    id
        The track's id.
    kind
        "file" or "recording", after what it shares with the first of its group, or "alike".
    similarity
        The share of bits of the fingerprints that agree with the first of its group. Where tracks
        are alike, 1 less the share of the usual distance to the nearest track. The first has 1.
    """

    group: int
    id: str
    kind: str
    similarity: float


def find(run: "Results", use_fingerprints: bool = True) -> list[Same]:
    """Return the tracks that are the same as others, and those that are alike, in groups.

    Raises
    ------
    UserError
        If Chromaprint is missing, and fingerprints are to be used.
    """
    if use_fingerprints:
        fingerprint.check_installed()
    if len(run.ids) < 2:
        return []
    paths = _paths(run)
    contents = _contents(paths)
    rows, distances = neighbours.nearest_others(run.latents, PROPOSED)
    same = _equal_files(contents)
    if use_fingerprints:
        same = _equal_sounds(paths, rows) | same
    groups, found = _cliques(len(run.ids), same), list[Same]()
    for number, (first, *others) in enumerate(groups, 1):
        kinds = [FILE if _is_equal(contents, first, row) else RECORDING for row in others]
        found.append(Same(number, run.ids[first], max(kinds), 1.0))
        for row, kind in zip(others, kinds, strict=True):
            found.append(Same(number, run.ids[row], kind, same[first, row]))
    grouped = {pair for group in groups for pair in itertools.combinations(group, 2)}
    pairs = alike(rows, distances, grouped)
    for number, ((first, second), likeness) in enumerate(pairs.items(), len(groups) + 1):
        found += [Same(number, run.ids[first], ALIKE, 1.0)]
        found += [Same(number, run.ids[second], ALIKE, likeness)]
    return found


def _paths(run: "Results") -> dict[int, Path]:
    """Return where the tracks' files are, of those that are files here, by position."""
    named = (
        (row, run.manifest[run.rows[id_]]) for row, id_ in enumerate(run.ids) if id_ in run.rows
    )
    return {
        row: track.audio_path
        for row, track in named
        if isinstance(track.audio_path, Path) and track.audio_path.is_file()
    }


def _contents(paths: Mapping[int, Path]) -> dict[int, str]:
    """Return the hashes of files that may be equal to others, having their size."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for row, path in paths.items():
        sizes[path.stat().st_size].append(row)
    several = itertools.chain.from_iterable(rows for rows in sizes.values() if len(rows) > 1)
    return {row: files.sha256(paths[row]) for row in several}


def _is_equal(contents: Mapping[int, str], first: int, second: int) -> bool:
    return first in contents and contents[first] == contents.get(second)


def _equal_files(contents: Mapping[int, str]) -> dict[tuple[int, int], float]:
    """Return the pairs of equal files, with the similarity 1."""
    equal: dict[str, list[int]] = defaultdict(list)
    for row, content in sorted(contents.items()):
        equal[content].append(row)
    pairs = (itertools.combinations(rows, 2) for rows in equal.values())
    return dict.fromkeys(itertools.chain.from_iterable(pairs), 1.0)


def _equal_sounds(paths: Mapping[int, Path], nearest: np.ndarray) -> dict[tuple[int, int], float]:
    """Return the pairs of near tracks whose fingerprints agree, and how far they do."""
    pairs = {
        (min(row, other), max(row, other))
        for row, others in enumerate(nearest.tolist())
        for other in others
        if row in paths and other in paths
    }
    rows = sorted({*itertools.chain.from_iterable(pairs)})
    with ThreadPoolExecutor(num_cores()) as pool:
        prints = dict(zip(rows, pool.map(_fingerprint, (paths[row] for row in rows)), strict=True))
    agreeing = {}
    for first, second in sorted(pairs):
        likeness = fingerprint.similarity(prints[first], prints[second])
        if likeness >= SAME_RECORDING:
            agreeing[first, second] = likeness
    return agreeing


def _fingerprint(path: Path) -> np.ndarray:
    try:
        return fingerprint.compute(path)
    except (AudioError, MachineError) as error:
        logging.warning("%s is not compared: %s", path, error)
        return np.zeros(0, np.uint32)


def _cliques(count: int, same: Mapping[tuple[int, int], float]) -> list[list[int]]:
    """Return groups in which all tracks are the same as all others, the surest pairs first."""
    group = {row: [row] for row in range(count)}
    for first, second in sorted(same, key=lambda pair: (-same[pair], pair)):
        ours, theirs = group[first], group[second]
        if ours is theirs:
            continue
        if all((min(pair), max(pair)) in same for pair in itertools.product(ours, theirs)):
            ours += theirs
            group |= dict.fromkeys(theirs, ours)
    groups: Iterable[list[int]] = {id(rows): rows for rows in group.values()}.values()
    return [sorted(rows) for rows in groups if len(rows) > 1]


def alike(
    nearest: np.ndarray, distances: np.ndarray, grouped: set[tuple[int, int]]
) -> dict[tuple[int, int], float]:
    """Return pairs that are each other's nearest, and unusually near, the nearest first."""
    usual = float(np.median(distances[:, 0])) or 1.0
    pairs = {}
    for row, (other, *_) in enumerate(nearest.tolist()):
        share = float(distances[row, 0]) / usual
        mutual = nearest[other, 0] == row and row < other
        if mutual and share < NEAR and (row, other) not in grouped:
            pairs[row, other] = 1 - share
    return dict(sorted(pairs.items(), key=lambda item: -item[1]))
