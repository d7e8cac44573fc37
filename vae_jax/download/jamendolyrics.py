"""JamendoLyrics MultiLang: 79 songs in four languages with lyrics (Durand et al., ICASSP 2023).

Layout of https://huggingface.co/datasets/jamendolyrics/jamendolyrics, by its README and
https://github.com/f90/jamendolyrics: `JamendoLyrics.csv` (URL, Filepath, Artist, Title, Genre,
LicenseType, Language, ...), `lyrics/SONG.txt` (and `SONG.words.txt`, one word per line, not
needed here), and the songs as `subsets/LANGUAGE/mp3/SONG.mp3`. Clones keep them in `mp3/`, where
the hub's repository may hold links, which arrive as tiny text files: the larger file is the song.

The songs' language is their label, as in the literature on this set.
"""

import csv
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from absl import logging

from vae_jax.download import hub, local
from vae_jax.errors import UserError

INDEX = "JamendoLyrics.csv"
LANGUAGES = {"en": "English", "fr": "French", "de": "German", "es": "Spanish"}
EXTRA = {"artist": "Artist", "title": "Title", "license": "LicenseType", "url": "URL"}


def download(repo_id: str, language: str | None, data_dir: Path, revision: str | None) -> Path:
    """Fetch the songs and lyrics of one language (all if None) and write `metadata.csv`.

    Returns
    -------
    Path
        The manifest; audio is in `audio/`, lyrics are in `lyrics/` beside it.
    """
    manifest = data_dir / "metadata.csv"
    local.check_manifest(manifest)
    source = hub.snapshot(repo_id, revision)
    with local.work_folder(data_dir) as work:
        songs = _select(_songs(source, work), language, repo_id)
        rows = _fetch_songs(source, songs, data_dir, work)
    record = {
        "source": "jamendolyrics",
        **source.record(),
        "language": language,
        "tracks": len(rows),
    }
    local.write_manifest(manifest, tuple(EXTRA), rows, record)
    return manifest


def _songs(source: hub.Snapshot, work: Path) -> list[dict[str, str]]:
    if INDEX not in source.files:
        raise UserError(f"{source.repo_id} has no {INDEX}: it is not laid out as JamendoLyrics.")
    index = work / INDEX
    hub.fetch(source, {index: source.files[INDEX]}, work)
    with open(index, encoding="utf-8-sig", newline="") as file:
        songs = [song for song in csv.DictReader(file) if song.get("Filepath")]
    if not songs or not songs[0].get("Language"):
        raise UserError(f"{INDEX} of {source.repo_id} lacks the columns Filepath and Language.")
    return songs


def _select(
    songs: Sequence[dict[str, str]], language: str | None, repo_id: str
) -> list[dict[str, str]]:
    """Keep the songs of a language, given by name or code."""
    if language is None:
        return list(songs)
    code = _code(language)
    chosen = [song for song in songs if _code(song["Language"]) == code]
    if not chosen:
        there = sorted({LANGUAGES.get(_code(song["Language"]), song["Language"]) for song in songs})
        raise UserError(
            f"{repo_id} has no songs in {language!r}: choose one of {', '.join(there)}, or leave "
            "--language out for all."
        )
    return chosen


def _code(language: str) -> str:
    """Return the two-letter code of a language given by name or code."""
    folded = language.strip().casefold()
    return next((code for code, name in LANGUAGES.items() if name.casefold() == folded), folded)


def _fetch_songs(
    source: hub.Snapshot, songs: Sequence[Mapping[str, str]], data_dir: Path, work: Path
) -> list[dict[str, str]]:
    audio = _by_name(source, ".mp3")
    lyrics = _by_name(source, ".txt", folder="lyrics")
    wanted: dict[Path, hub.RemoteFile] = {}
    places = []
    for song in songs:
        sound = local.confined(data_dir / "audio", song["Filepath"])
        text = local.confined(data_dir / "lyrics", f"{sound.stem}.txt")
        for path, there in ((sound, audio), (text, lyrics)):
            if remote := there.get(_key(path.name)):
                wanted[path] = remote
            else:
                logging.warning("%s has no file for %s", source.repo_id, path.name)
        places.append((sound, text))
    if not any(sound in wanted for sound, _ in places):
        raise UserError(f"{source.repo_id} has none of the mp3 files that its {INDEX} names.")
    hub.fetch(source, wanted, work)
    return [
        _row(song, sound if sound in wanted else None, text if text in wanted else None, data_dir)
        for song, (sound, text) in zip(songs, places, strict=True)
    ]


def _by_name(source: hub.Snapshot, suffix: str, folder: str = "") -> dict[str, hub.RemoteFile]:
    """Index the files by name; among equal names the largest is the file and no link to it."""
    found = [
        file
        for path, file in source.files.items()
        if path.endswith(suffix) and path.startswith(folder)
    ]
    return {_key(file.path): file for file in sorted(found, key=lambda file: file.size)}


def _key(path: str) -> str:
    """Return a file name in one Unicode form: systems write accents in two ways."""
    return unicodedata.normalize("NFC", PurePosixPath(path).name)


def _row(
    song: Mapping[str, str], audio: Path | None, lyrics: Path | None, data_dir: Path
) -> dict[str, str]:
    code = _code(song["Language"])
    return {
        "id": PurePosixPath(song["Filepath"]).stem,
        "audio_path": local.relative(audio, data_dir) if audio else "",
        "language": code,
        "genre": song.get("Genre") or "",
        "label": LANGUAGES.get(code, song["Language"]),
        "lyrics": lyrics.read_text("utf-8", errors="replace").strip() if lyrics else "",
        **{column: song.get(name) or "" for column, name in EXTRA.items()},
    }
