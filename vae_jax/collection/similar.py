"""Finds tracks of a run that sound like given ones, with the manifest's columns as filters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vae_jax.collection import filters, neighbours, playlists
from vae_jax.errors import UserError
from vae_jax.manifest import Track

if TYPE_CHECKING:
    from vae_jax.api import Results

DURATION = "duration"
SAME = 1e-6  # of the latents' deviation; tracks nearer than that are the same


@dataclass(frozen=True)
class Wish:
    """What is looked for.

    Attributes
    ----------
    to
        Ids, or audio files that are not in the run. Tracks near to their mean are found.
    away
        Ids or files; tracks that are nearer to one of these are left out.
    count
        The number of tracks; fewer are found if no more fit.
    where
        Conditions on the manifest's columns (see `filters.fitting`).
    per_artist
        The most tracks by one artist, or None.
    union
        Whether tracks near to any of `to` are found, instead of near to their mean.
    mutual
        Whether to rank by mutual proximity, which avoids hubs, instead of distance.
    """

    to: Sequence[str]
    away: Sequence[str] = ()
    count: int = 20
    where: str = ""
    per_artist: int | None = None
    union: bool = False
    mutual: bool = True


@dataclass(frozen=True)
class Found:
    """A track that was found, and its distance in the latent space (NaN on a way)."""

    track: Track
    distance: float


def find(run: "Results", wish: Wish) -> list[Found]:
    """Return the tracks that are most like those wished for, the most alike first.

    Left out are the tracks wished for themselves, those with the same latents, those of the same
    artist and title, and the same recordings as `duplicates.csv` lists them, where that was
    written. Every other recording is found once.

    Raises
    ------
    UserError
        If an id is unknown, a file cannot be encoded, or a condition cannot be read.
    """
    to, away = points(run, wish.to), points(run, wish.away) if wish.away else None
    fits = _fitting(run, wish.where) & ~_same(run, wish.to, to)
    rows, distances = neighbours.nearest(
        run.space, to, away, wish.mutual, wish.union, np.flatnonzero(fits)
    )
    distance = dict(zip(rows.tolist(), distances.tolist(), strict=True))
    kept = _fewer(run, rows.tolist(), wish)
    return [Found(_track(run, row), distance[row]) for row in kept[: wish.count]]


def walk(run: "Results", end: str, wish: Wish) -> list[Found]:
    """Return `wish.count` tracks on the way from the first one wished for to another of the run.

    Both are included, whatever the conditions say.
    """
    begin = wish.to[0]
    for name in (begin, end):
        if name not in run.positions:
            raise UserError(f"{run.outdir} has no track {name!r}: a path joins two of its tracks.")
    first, last = run.positions[begin], run.positions[end]
    rows = _fewer(run, np.flatnonzero(_fitting(run, wish.where)).tolist(), wish)
    count = min(wish.count, 2 + len(set(rows) - {first, last}))
    if begin == end or count < 2:
        raise UserError("a path needs two different tracks, and --k of 2 or more.")
    found = neighbours.walk(run.latents, first, last, count, rows)
    return [Found(_track(run, row), float("nan")) for row in found]


def points(run: "Results", names: Sequence[str]) -> np.ndarray:
    """Return the latents [Q, L] of tracks of the run, or of audio files."""
    unknown = [name for name in names if name not in run.positions]
    for name in unknown:
        if not Path(name).is_file():
            raise UserError(
                f"{run.outdir} has no track {name!r}, and there is no such file: give an id from "
                "clusters.csv, or an audio file."
            )
    encoded = dict[str, np.ndarray]()
    if unknown:
        from vae_jax.api import Model

        new = Model.load(run.outdir).encode(unknown)
        for name, reason in new.failures.items():
            raise UserError(f"cannot use {name}: {reason}")
        encoded = dict(zip(new.ids, new.mean, strict=True))
    rows = run.positions
    return np.stack([encoded[n] if n in encoded else run.latents[rows[n]] for n in names])


def _fitting(run: "Results", conditions: str) -> np.ndarray:
    """Return which tracks meet conditions on the manifest's columns and on the clusters, [N] bool.

    Where the manifest has no durations, those in the headers of the files count.
    """
    if not conditions:
        return np.ones(len(run.ids), bool)
    names = [name for name in run.manifest.columns if name not in ("lyrics", "audio_path")]
    columns = {name: _column(run, name) for name in names}
    columns |= {"id": run.ids, "cluster": [str(number) for number in run.clusters]}
    if DURATION in conditions and DURATION not in columns:
        seconds = (playlists.duration(_track(run, row)) for row in range(len(run.ids)))
        columns[DURATION] = ["" if one is None else str(one) for one in seconds]
    return filters.fitting(columns, conditions)


def _column(run: "Results", name: str) -> list[str]:
    """Return a column's values in the order of the latents; what is missing is empty."""
    if name not in run.manifest.columns:
        return [""] * len(run.ids)
    values, rows = run.manifest.columns[name], map(run.rows.get, run.ids)
    return ["" if row is None else values[row] for row in rows]


def _same(run: "Results", names: Sequence[str], to: np.ndarray) -> np.ndarray:
    """Return which tracks are the same as one of those wished for, [N] bool."""
    scale = float(run.latents.std())
    same = (run.space.distances(to) <= SAME * scale).any(axis=0)
    artists, titles = (_column(run, name) for name in ("artist", "title"))
    songs = [(a.casefold(), t.casefold()) for a, t in zip(artists, titles, strict=True)]
    wished = {songs[run.positions[name]] for name in names if name in run.positions}
    return same | np.array([song in wished and all(song) for song in songs], bool)


def _fewer(run: "Results", rows: list[int], wish: Wish) -> list[int]:
    """Keep the first of each recording, if none is wished for, and the first ones by an artist."""
    recordings = run.recordings
    if recordings:
        taken = {recordings[name] for name in wish.to if name in recordings}
        groups = [recordings.get(run.ids[row], "") for row in rows]
        firsts = filters.at_most_each(dict(zip(rows, groups, strict=True)), rows, 1)
        rows = [row for row in firsts if recordings.get(run.ids[row]) not in taken]
    if wish.per_artist is None:
        return rows
    return filters.at_most_each(run.manifest.labels("artist", run.ids), rows, wish.per_artist)


def _track(run: "Results", row: int) -> Track:
    id_ = run.ids[row]
    return run.manifest[run.rows[id_]] if id_ in run.rows else Track(id_)
