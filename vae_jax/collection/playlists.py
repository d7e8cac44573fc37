"""Writes playlists that players open: extended M3U in UTF-8 (`.m3u8`)."""

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

from vae_jax.errors import UserError
from vae_jax.manifest import Track
from vae_jax.storage import files

UNKNOWN = -1  # the duration that players take for unknown
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def write(path: str | os.PathLike, tracks: Iterable[Track], absolute: bool = False) -> int:
    """Write the tracks that have audio as a playlist.

    Parameters
    ----------
    path
        The playlist, which should end in .m3u8.
    tracks
        The tracks in playing order. Entries are called by the columns `artist` and `title`, or by
        the id.
    absolute
        Whether entries are absolute paths; else they are relative to the playlist's folder, so
        that music and playlist can be moved together.

    Returns
    -------
    int
        The number of entries. Tracks without audio, and files whose names hold line breaks, which
        no playlist can name, have none.

    Raises
    ------
    UserError
        If no track can be listed.
    """
    folder = Path(path).resolve().parent
    lines, count = ["#EXTM3U"], 0
    for track in tracks:
        place = _entry(track, folder, absolute)
        if place is None:
            continue
        seconds = duration(track)
        rounded = UNKNOWN if seconds is None else round(seconds)
        lines += [f"#EXTINF:{rounded},{called(track)}", place]
        count += 1
    if not count:
        raise UserError(f"{path} is not written: none of the tracks has a file to play.")
    with files.atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
    return count


def called(track: Track) -> str:
    """Return "artist - title" in one line; the id is the title of a track that has none."""
    artist, title = (
        _BREAKS.sub(" ", track.columns.get(name, "")).strip() for name in ("artist", "title")
    )
    return " - ".join(filter(None, (artist, title or track.id)))


def _entry(track: Track, folder: Path, absolute: bool) -> str | None:
    place = track.audio_path
    if isinstance(place, Path):
        full = os.path.abspath(place)
        place = full if absolute else os.path.relpath(full, folder)
        if place.startswith("#"):  # which would be a comment
            place = f"./{place}"
    return None if place is None or _BREAKS.search(place) else place


def duration(track: Track) -> float | None:
    """Return the seconds from the column `duration`, or else from the file's header; or None."""
    import soundfile

    try:
        seconds = float(track.columns.get("duration", ""))
        return seconds if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        if isinstance(track.audio_path, Path) and track.audio_path.is_file():
            return float(soundfile.info(track.audio_path).duration)
    except (OSError, RuntimeError):
        pass
    return None
