"""Any folder of music: a manifest from the files' tags, read by mutagen without decoding audio.

Lyrics come from a `.txt` or `.lrc` file beside the song (someone put it there on purpose), else
from the tags: USLT in ID3 (mp3, wav, aiff), `©lyr` in MP4, LYRICS or UNSYNCEDLYRICS in Vorbis
comments (flac, ogg, opus), Lyrics in APE, WM/Lyrics in ASF. Time stamps are taken out.
"""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from vae_jax.console import Progress
from vae_jax.download import local
from vae_jax.errors import UserError

SUFFIXES = (
    *(".aac", ".aif", ".aifc", ".aiff", ".ape", ".au", ".flac", ".m4a", ".mp3", ".mp4", ".mpc"),
    *(".oga", ".ogg", ".opus", ".wav", ".wma", ".wv"),
)
SIDECARS = (".lrc", ".txt")
MAX_LYRICS = 1 << 20  # bytes of a sidecar; a larger file is no song's lyrics
EXTRA = ("title", "artist", "album")
# The names of a column in each kind of tag: ID3; MP4; Vorbis comments, APE (any case) and ASF.
KEYS = {
    "title": ("TIT2", "©nam", "title", "Title"),
    "artist": ("TPE1", "©ART", "artist", "Author"),
    "album": ("TALB", "©alb", "album", "WM/AlbumTitle"),
    "genre": ("TCON", "©gen", "genre", "WM/Genre"),
    "language": ("TLAN", "----:com.apple.iTunes:LANGUAGE", "language", "WM/Language"),
    "lyrics": ("USLT", "©lyr", "lyrics", "unsyncedlyrics", "WM/Lyrics"),
}
_TIME = re.compile(r"[\[<]\d{1,3}:\d{2}(?:[.:]\d{1,3})?[\]>]")
_LRC_HEADER = re.compile(r"^\[(?:al|ar|au|by|id|la|length|lr|offset|re|ti|tool|ve):.*\]$", re.I)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def manifest(
    path: Path, output: Path, genre_from_folder: bool, record: dict[str, Any] | None = None
) -> int:
    """Write the manifest of a folder of music, found recursively.

    Ids are the paths relative to the folder, without their suffix unless two files differ in
    nothing else. The label is the genre.

    Parameters
    ----------
    path
        The folder.
    output
        The CSV to write.
    genre_from_folder
        Whether a file without a genre tag takes its folder's name for one, as in `rock/song.wav`.
    record
        More values for the manifest's record.

    Returns
    -------
    int
        The number of tracks; files that cannot be read are logged, counted and left out.

    Raises
    ------
    UserError
        If there is no such folder, or no audio file in it that can be read.
    """
    local.require("mutagen")
    if not path.is_dir():
        raise UserError(f"there is no folder {path}.")
    local.check_manifest(output)
    rows, broken = _read(path, output.parent, genre_from_folder)
    if not rows:
        raise UserError(
            f"{path} has no audio file that can be read ({len(broken)} broken); formats: "
            f"{' '.join(SUFFIXES)}."
        )
    _summarize(rows, broken, genre_from_folder)
    origin = {"source": "folder", "path": str(path), **(record or {})}
    found = {"tracks": len(rows), "broken": [str(file) for file in broken]}
    local.write_manifest(output, EXTRA, rows, {**origin, **found})
    return len(rows)


def _read(
    path: Path, manifest_folder: Path, genre_from_folder: bool
) -> tuple[list[dict[str, str]], list[Path]]:
    """Return the manifest's rows, and the files that cannot be read."""
    found = sorted(_audio_files(path))
    rows, broken = [], []
    with Progress("tags", len(found), "files") as progress:
        for number, (file, id_) in enumerate(zip(found, _ids(path, found), strict=True), 1):
            progress.update(number)
            row = _row(file)
            if isinstance(row, str):
                broken.append(file)
                logging.warning("skipped %s: %s", file, row)
                continue
            if genre_from_folder and file.parent != path:
                row["genre"] = row["genre"] or file.parent.name
            place = local.relative(file, manifest_folder)
            rows.append({**row, "id": id_, "audio_path": place, "label": row["genre"]})
    return rows, broken


def _audio_files(path: Path) -> Iterator[Path]:
    """Yield all audio files but hidden ones and those that a CSV cannot name."""
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            file = Path(folder, name)
            if file.suffix.lower() not in SUFFIXES or name.startswith("."):
                continue
            if _CONTROL.search(str(file)):
                logging.warning("skipped %a: its name is not valid text; rename it", str(file))
            elif file.is_file():  # no pipes, no broken links
                yield file


def _ids(root: Path, found: Sequence[Path]) -> list[str]:
    names = [file.relative_to(root).as_posix() for file in found]
    stems = [file.relative_to(root).with_suffix("").as_posix().strip() for file in found]
    count = Counter(stems)
    whole = set(names)
    return [
        stem if stem and count[stem] == 1 and stem not in whole else name
        for stem, name in zip(stems, names, strict=True)
    ]


def _row(file: Path) -> dict[str, str] | str:
    """Return the columns that a file and its sidecars tell, or why it cannot be read."""
    try:
        tags = _tags(file)
        row = {column: _first(tags, keys) for column, keys in KEYS.items()}
        row["lyrics"] = strip_times(_sidecar(file) or row["lyrics"])
    except Exception as error:  # a damaged file surprises the libraries in many ways
        return f"{type(error).__name__}: {error}"
    for column in row.keys() - {"lyrics"}:
        row[column] = " ".join(row[column].split())
    return row


def _tags(file: Path) -> Any:
    """Return a file's tags, or None; raise if it is no audio."""
    import mutagen
    import soundfile

    try:
        audio = mutagen.File(file)
    except Exception:  # mutagen's own errors and, on damaged files, many others
        audio = None
    if audio is None:
        soundfile.info(file)  # opens formats that have no tags (au) or rare variants (RF64)
        return None
    return audio.tags


def _first(tags: Any, keys: Sequence[str]) -> str:
    """Return the first value that the tags hold under one of the keys, as text."""
    if tags is None:
        return ""
    for key in keys:
        with contextlib.suppress(KeyError, ValueError):  # ValueError: no key in this kind of tag
            value = tags.getall(key) if hasattr(tags, "getall") else tags[key]
            value = value[0] if isinstance(value, list) and value else value
            if isinstance(getattr(value, "text", None), list):  # an ID3 frame with several texts
                value = value.text[0]
            if text := _CONTROL.sub("", _text(value)).strip():
                return text
    return ""


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _sidecar(file: Path) -> str:
    """Return the text of the lyrics file beside a song, or an empty string."""
    for suffix in SIDECARS:
        path = file.with_suffix(suffix)
        if not path.is_file():
            continue
        if path.stat().st_size > MAX_LYRICS:
            logging.warning("ignored %s: %d bytes are no lyrics", path, path.stat().st_size)
            continue
        return _CONTROL.sub("", _decode(path.read_bytes()))
    return ""


def _decode(content: bytes) -> str:
    """Decode a text file of unknown origin: UTF-16 with its mark, UTF-8, else Western European."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return _text(content.decode(encoding))
    except UnicodeDecodeError:
        return _text(content.decode("cp1252", "replace"))


def strip_times(lyrics: str) -> str:
    """Remove LRC time stamps (`[01:23.45]`, `<01:23.45>`) and headers (`[ar:...]`)."""
    lines = (line.strip() for line in lyrics.splitlines())
    kept = [_TIME.sub("", line).strip() for line in lines if not _LRC_HEADER.match(line)]
    return "\n".join(kept).strip()


def _summarize(
    rows: Sequence[dict[str, str]], broken: Sequence[Path], genre_from_folder: bool
) -> None:
    counts = {name: sum(bool(row[name]) for row in rows) for name in ("genre", "lyrics", "artist")}
    logging.info(
        "%d tracks (%s), %d broken files left out",
        len(rows),
        ", ".join(f"{count} with {name}" for name, count in counts.items()),
        len(broken),
    )
    if not counts["genre"] and not genre_from_folder:
        logging.info(
            "no file has a genre tag; if the folders are named by genre, as in rock/song.wav, add "
            "--genre_from_folder"
        )
