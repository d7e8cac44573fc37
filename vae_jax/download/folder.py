"""Any folder of music: a manifest from the files' tags (see `tags`), without decoding audio.

Files are told by their suffix and then by their signature. What is passed by is counted by kind;
audio files that no decoder reads are listed beside the manifest with the reason.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import logging

from vae_jax.console import Progress
from vae_jax.download import local, tags
from vae_jax.errors import UserError
from vae_jax.features.errors import MISSING, REMEDIES, UNREADABLE, AudioError
from vae_jax.manifest import as_id
from vae_jax.storage import files

SUFFIXES = (  # of what the decoders read; containers of films too, for the sake of their sound
    *(".3g2", ".3gp", ".aac", ".ac3", ".adts", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf"),
    *(".au", ".avi", ".bwf", ".caf", ".dff", ".dsf", ".dts", ".eac3", ".flac", ".flv", ".m2a"),
    *(".m4a", ".m4b", ".m4r", ".m4v", ".mka", ".mkv", ".mov", ".mp1", ".mp2", ".mp3", ".mp4"),
    *(".mpa", ".mpc", ".mpga", ".oga", ".ogg", ".ogv", ".ogx", ".opus", ".ra", ".rf64", ".rm"),
    *(".shn", ".snd", ".spx", ".tak", ".tta", ".voc", ".w64", ".wav", ".wave", ".weba", ".webm"),
    *(".wma", ".wmv", ".wv"),
)
ASIDE = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
SKIPPED = ("path", "kind", "reason", "remedy")  # the columns of the list of what is left out


@dataclass
class Found:
    """What a walk through a folder finds.

    Attributes
    ----------
    files
        The audio files, in the order of their names.
    skipped
        Rows for the list of what is left out.
    passed_by
        How much else there is, by suffix or kind.
    """

    files: list[Path] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    passed_by: Counter[str] = field(default_factory=Counter)

    def skip(self, path: str | Path, kind: str, reason: str, remedy: str) -> None:
        """Note that a file is left out."""
        text = os.fsencode(path).decode(errors="backslashreplace")
        values = (text, kind, " ".join(reason.split()), remedy)
        self.skipped.append(dict(zip(SKIPPED, values, strict=True)))

    def skip_folder(self, error: OSError) -> None:
        """Note that a folder cannot be listed."""
        reason = error.strerror or str(error)
        self.skip(error.filename, UNREADABLE, reason, "allow to read the folder")


def manifest(
    path: Path, output: Path, genre_from_folder: bool, record: Mapping[str, Any] | None = None
) -> int:
    """Write the manifest of a folder of music, found recursively, also through links.

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
        The number of tracks; audio files that cannot be read are counted, and listed in
        `<manifest>.skipped.csv`.

    Raises
    ------
    UserError
        If there is no such folder, or no audio file in it that can be read.
    """
    if not path.is_dir():
        raise UserError(f"there is no folder {path}.")
    found = _walk(path)
    names = [file.relative_to(path) for file in found.files]
    origin = {"source": "folder", "path": str(path), **(record or {})}
    return write(found, names, output, origin, path if genre_from_folder else None)


def write(
    found: Found,
    names: Sequence[Path],
    output: Path,
    origin: Mapping[str, Any],
    genre_folder: Path | None = None,
) -> int:
    """Write the manifest of files that were found, and what is left out; return how many tracks.

    Parameters
    ----------
    found
        The files; those that no decoder reads are added to what is skipped.
    names
        What to make their ids from.
    output
        The CSV to write.
    origin
        Where they come from, for the manifest's record.
    genre_folder
        The folder below which the folders' names are genres.
    """
    local.require("mutagen")
    local.check_manifest(output)
    rows = []
    with Progress("tags", len(found.files), "files") as progress:
        for number, (file, id_) in enumerate(zip(found.files, ids(names), strict=True), 1):
            progress.update(number)
            row = _row(file, found)
            if row is None:
                continue
            if genre_folder and file.parent != genre_folder:
                row["genre"] = row["genre"] or file.parent.name
            place = local.relative(file, output.parent)
            rows.append({**row, "id": id_, "audio_path": place, "label": row["genre"]})
    _summarize(rows, found, output, genre_folder is None)
    if not rows:
        raise UserError(
            f"{origin['path']} has no audio file that can be read ({len(found.skipped)} left out); "
            f"formats: {' '.join(SUFFIXES)}."
        )
    counts = {"tracks": len(rows), "skipped": len(found.skipped)}
    passed_by = dict(sorted(found.passed_by.items()))
    local.write_manifest(output, tags.EXTRA, rows, {**origin, **counts, "passed_by": passed_by})
    return len(rows)


def ids(names: Iterable[Path]) -> list[str]:
    """Make unique ids of relative paths: without the suffix, where nothing else has the name."""
    names = list(names)
    stems = [as_id(name.with_suffix("").as_posix()) for name in names]
    whole = [as_id(name.as_posix()) for name in names]
    count, names_in_use = Counter(stems), {*whole}
    chosen = [
        stem if stem and count[stem] == 1 and stem not in names_in_use else name
        for stem, name in zip(stems, whole, strict=True)
    ]
    unique = dict[str, None]()
    for id_ in chosen:
        one, number = id_, 2
        while one in unique:  # names that differ in spaces or control characters alone
            one, number = as_id(f"{id_} ({number})"), number + 1
        unique[one] = None
    return list(unique)


def _walk(root: Path) -> Found:
    """Find all audio files but hidden ones; each once, though links may lead to it again."""
    found, seen, links = Found(), set[str](), [root]
    while links:  # what is reached without links goes by its own name, so links come last
        for parent, folders, names in os.walk(links.pop(0), onerror=found.skip_folder):
            real = os.path.realpath(parent)
            if real in seen or os.path.realpath(root).startswith(os.path.join(real, "")):
                found.passed_by["links to folders that are listed already"] += 1
                folders.clear()
                continue
            seen.add(real)
            aside = [name for name in folders if name.startswith(".") or name in ASIDE]
            found.passed_by["hidden folders"] += len(aside)
            folders[:] = sorted({*folders} - {*aside})
            links += [
                path for path in (Path(parent, name) for name in folders) if path.is_symlink()
            ]
            for name in sorted(names):
                _sort(Path(parent, name), found)
    own = {os.path.realpath(file) for file in found.files if not file.is_symlink()}
    again = {f for f in found.files if f.is_symlink() and os.path.realpath(f) in own}
    found.passed_by["links to files that are listed already"] += len(again)
    found.files = sorted({*found.files} - again)
    found.passed_by += Counter()  # drops zeros
    return found


def _sort(file: Path, found: Found) -> None:
    """Put a file where it belongs."""
    suffix = file.suffix.lower()
    if file.name.startswith("."):
        kind = "AppleDouble files" if file.name.startswith("._") else "hidden files"
        found.passed_by[kind] += 1
    elif suffix not in SUFFIXES:
        if suffix not in tags.SIDECARS:
            found.passed_by[suffix if SUFFIX.fullmatch(suffix) else "other files"] += 1
    elif not _is_text(str(file)):
        found.skip(file, UNREADABLE, "its name is not valid text", "rename it")
    elif not file.exists():
        found.skip(file, MISSING, "a link that leads nowhere", "mend or remove the link")
    elif not file.is_file():
        found.passed_by["pipes and devices"] += 1
    else:
        found.files.append(file)


def _is_text(name: str) -> bool:
    """Say whether a CSV, which is UTF-8, can hold a name."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _row(file: Path, found: Found) -> dict[str, str] | None:
    """Return the columns that a file tells, or note why it is left out."""
    try:
        return tags.read(file)
    except AudioError as error:
        found.skip(file, error.kind, str(error), REMEDIES[error.kind])
    except OSError as error:
        kind = MISSING if isinstance(error, FileNotFoundError) else UNREADABLE
        found.skip(file, kind, error.strerror or str(error), REMEDIES[kind])
    return None


def _summarize(
    rows: Sequence[Mapping[str, str]], found: Found, output: Path, may_name_genres: bool
) -> None:
    """Write the list of what is left out, and log all counts."""
    counts = {name: sum(bool(row[name]) for row in rows) for name in ("genre", "lyrics", "artist")}
    told = ", ".join(f"{count} with {name}" for name, count in counts.items())
    logging.info("%d tracks (%s)", len(rows), told)
    if found.passed_by:
        passed = ", ".join(f"{count} {kind}" for kind, count in found.passed_by.most_common())
        logging.info("passed by: %s", passed)
    path = output.with_name(f"{output.stem}.skipped.csv")
    files.write_csv(path, SKIPPED, found.skipped)
    if found.skipped:
        kinds = Counter(row["kind"] for row in found.skipped).most_common()
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds)
        logging.warning(
            "%d left out (%s); %s says why, and what to do", len(found.skipped), listed, path
        )
    if not counts["genre"] and may_name_genres:
        logging.info(
            "no file has a genre tag; if the folders are named by genre, as in rock/song.wav, add "
            "--genre_from_folder"
        )
