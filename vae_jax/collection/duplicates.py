"""Finds tracks of a run that are the same: the same file, or the same recording in another file.

The latents, and what fingerprints of the sound have in common, propose pairs; durations and whole
fingerprints confirm them. A track joins a group only if it is the same as every track of it: in
doubt, tracks stay apart. Tracks that are merely alike, such as versions of a song, are listed in
pairs and belong to no group.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vae_jax.collection import neighbours
from vae_jax.features import fingerprint
from vae_jax.features.fingerprint import Print
from vae_jax.manifest import Track
from vae_jax.run import FINGERPRINTS
from vae_jax.storage import files

if TYPE_CHECKING:
    from vae_jax.api import Results

FILE, RECORDING, ALIKE = "file", "recording", "alike"
SAID = {
    FILE: "the same file",
    RECORDING: "the same recording",
    ALIKE: "alike, perhaps versions",
}
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
    """Return the tracks of a run that are the same as others, and those that are alike, in groups.

    Fingerprints are kept in the run's folder.

    Raises
    ------
    UserError
        If Chromaprint is missing, and fingerprints are to be used.
    """
    if use_fingerprints:
        fingerprint.check_installed(
            "look for equal files and alike tracks only, with --nofingerprint"
        )
    rows = map(run.rows.get, run.ids)
    ids = zip(run.ids, rows, strict=True)
    tracks = [Track(id_) if row is None else run.manifest[row] for id_, row in ids]
    return among(tracks, run.latents, run.outdir / FINGERPRINTS if use_fingerprints else None)


def among(tracks: Sequence[Track], points: np.ndarray, fingerprints: Path | None) -> list[Same]:
    """Return the tracks that are the same as others, and those that are alike, in groups.

    Parameters
    ----------
    tracks
        N tracks.
    points
        A representation of them in which copies are near to each other, [N, L].
    fingerprints
        The file in which fingerprints are kept; None to do without.
    """
    if len(tracks) < 2:
        return []
    paths = {
        row: track.audio_path
        for row, track in enumerate(tracks)
        if isinstance(track.audio_path, Path) and track.audio_path.is_file()
    }
    rows, distances = neighbours.nearest_others(points, PROPOSED)
    contents = _contents(paths)
    same = _Sameness(_equal_files(contents))
    if fingerprints is not None:
        by_id = {tracks[row].id: path for row, path in paths.items()}
        prints = fingerprint.of_all(by_id, fingerprints)
        same.prints.update({row: prints[tracks[row].id] for row in paths})
        same.compare(_near(rows))
        in_order = sorted(same.prints)
        shared = fingerprint.pairs_in_common([same.prints[row] for row in in_order])
        same.compare((in_order[a], in_order[b]) for a, b in shared)
    groups, found = _cliques(len(tracks), same), list[Same]()
    for number, (first, *others) in enumerate(groups, 1):
        kinds = [FILE if _is_equal(contents, first, row) else RECORDING for row in others]
        found.append(Same(number, tracks[first].id, max(kinds), 1.0))
        for row, kind in zip(others, kinds, strict=True):
            found.append(Same(number, tracks[row].id, kind, same.likeness(first, row)))
    grouped = {pair for group in groups for pair in itertools.combinations(group, 2)}
    pairs = alike(rows, distances, grouped)
    for number, ((first, second), likeness) in enumerate(pairs.items(), len(groups) + 1):
        found += [Same(number, tracks[first].id, ALIKE, 1.0)]
        found += [Same(number, tracks[second].id, ALIKE, likeness)]
    return found


def all_but_the_first(found: Iterable[Same]) -> list[dict[str, str]]:
    """Return rows (id, same_as, kind, similarity) of the same recordings, without one of each."""
    firsts: dict[int, str] = {}
    rows = []
    for one in found:
        if one.kind != ALIKE and firsts.setdefault(one.group, one.id) != one.id:
            likeness = f"{one.similarity:.4f}"
            row = {"id": one.id, "same_as": firsts[one.group], "kind": one.kind}
            rows.append(row | {"similarity": likeness})
    return rows


@dataclass(frozen=True)
class _Sameness:
    """How far the fingerprints of two tracks agree, looked at once for each pair.

    Attributes
    ----------
    known
        By pairs of positions, the lower one first; 1 for equal files.
    prints
        The fingerprints by position.
    """

    known: dict[tuple[int, int], float]
    prints: dict[int, Print] = field(default_factory=dict)

    def likeness(self, first: int, second: int) -> float:
        """Return how far two tracks agree; 0 if that is unknown."""
        pair = min(first, second), max(first, second)
        if pair not in self.known:
            one, other = (self.prints.get(row) for row in pair)
            self.known[pair] = fingerprint.likeness(one, other) if one and other else 0.0
        return self.known[pair]

    def compare(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Look at pairs that may be the same."""
        for pair in pairs:
            self.likeness(*pair)

    def pairs(self) -> list[tuple[int, int]]:
        """Return the pairs that are known to be the same, the surest first."""
        same = [pair for pair, value in self.known.items() if value >= SAME_RECORDING]
        return sorted(same, key=lambda pair: (-self.known[pair], pair))


def _near(nearest: np.ndarray) -> set[tuple[int, int]]:
    """Return the pairs of which one is among the nearest of the other, [N, n]."""
    return {
        (min(row, other), max(row, other))
        for row, others in enumerate(nearest.tolist())
        for other in others
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


def _cliques(count: int, same: _Sameness) -> list[list[int]]:
    """Return groups in which all tracks are the same as all others, the surest pairs first."""
    group = {row: [row] for row in range(count)}
    for first, second in same.pairs():
        ours, theirs = group[first], group[second]
        if ours is theirs:
            continue
        pairs = itertools.product(ours, theirs)
        if all(same.likeness(*pair) >= SAME_RECORDING for pair in pairs):
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
