"""What a music file tells of itself: tags by mutagen, and the lyrics beside it.

Lyrics come from a `.txt` or `.lrc` file beside the song (someone put it there on purpose), else
from the tags: USLT, SYLT and TXXX in ID3 (mp3, wav, aiff), `©lyr` in MP4, LYRICS or UNSYNCEDLYRICS
in Vorbis comments (flac, ogg, opus), Lyrics in APE, WM/Lyrics in ASF. Time stamps are taken out.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from absl import logging

from vae_jax.entities import unescape
from vae_jax.features import containers, mpeg
from vae_jax.features.errors import DAMAGED, NO_AUDIO, UNSUPPORTED, AudioError
from vae_jax.features.lyrics_text import has_words, without_stamps

SIDECARS = (".lrc", ".txt")
SHORTEST = 0.1  # s; what seems to be shorter is asked of the decoder
LONGEST = 2**32  # s; a file that was written to a pipe claims more
MAX_LYRICS = 1 << 20  # bytes of a sidecar; a larger file is no song's lyrics
EXTRA = ("title", "artist", "album", "date", "track_number", "duration")
# The names of a column in each kind of tag, in small letters and digits alone: ID3; MP4; Vorbis
# comments, APE and ASF; INFO chunks of wav.
NAMES = {
    "title": ("tit2", "©nam", "title", "inam"),
    "artist": ("tpe1", "©art", "artist", "author", "iart"),
    "album": ("talb", "©alb", "album", "albumtitle", "iprd"),
    "genre": ("tcon", "©gen", "genre", "ignr"),
    "language": ("tlan", "language", "ilng"),
    "date": ("tdrc", "tyer", "©day", "date", "year", "icrd"),
    "track_number": ("trck", "trkn", "tracknumber", "track", "itrk", "iprt"),
}
SEVERAL = ("artist", "genre", "language")  # columns that keep all values, separated by semicolons
_LYRICS = re.compile(
    r"uslt|sylt|©lyr|(?:un)?(?:sync(?:ed|hroni[sz]ed)?)?lyrics(?:(?:un)?synchroni[sz]ed)?(?!url)[a-z]{0,3}"
)
SUNG = (1, 2)  # the types of SYLT that are lyrics: others are chords, trivia, pictures
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def read(file: Path) -> dict[str, str]:
    """Return the columns that a file and what lies beside it tell, as text.

    `duration` is in seconds, as the header says, or by the count of its frames.

    Raises
    ------
    AudioError
        If no decoder reads it.
    OSError
        If it cannot be read.
    """
    found, seconds = _tags(file)
    row = {
        column: (";" if column in SEVERAL else "").join(
            dict.fromkeys(_values(found, names)[: None if column in SEVERAL else 1])
        )
        for column, names in NAMES.items()
    }
    row["track_number"] = row["track_number"].partition("/")[0]
    row["duration"] = f"{seconds:.2f}" if seconds else ""
    sung = [text for name, texts in found.items() if _LYRICS.fullmatch(name) for text in texts]
    row["lyrics"] = _lyrics([_sidecar(file), *sung])
    return row


def _lyrics(texts: Sequence[str]) -> str:
    """Return the first of several lyrics that holds words, without time stamps."""
    kept = [without_stamps(unescape(text)) for text in texts if text.strip()]
    return next(filter(has_words, kept), kept[0] if kept else "")


def _values(found: dict[str, list[str]], names: Sequence[str]) -> list[str]:
    """Return the values under the first of the names that is there, each on one line."""
    for name in names:
        values = [" ".join(unescape(text).split()) for text in found.get(name, ())]
        if values := [value for value in values if value]:
            return values
    return []


def _tags(file: Path) -> tuple[dict[str, list[str]], float]:
    """Return a file's tags by their simplified names, and its length in seconds or 0."""
    import mutagen

    with open(file, "rb", buffering=0) as content:
        demuxer, start = containers.recognise(content)
        frames = mpeg.examine(content, start) if demuxer == "mp3" else None
        found = dict(_info(content)) if demuxer == "wav" else {}
    try:
        audio = mutagen.File(file)  # None if it knows no such kind, which is an error below
        for name, texts in _texts(audio.tags):
            values = [_CONTROL.sub("", text).strip() for text in texts.split("\0")]
            found.setdefault(re.sub(r"[^a-z0-9©]", "", name.lower()), []).extend(values)
    except Exception:  # mutagen's own errors and, on damaged files, many others
        audio = None
    codec = str(getattr(getattr(audio, "info", None), "codec", ""))
    if "drm" in codec:
        raise AudioError("it is protected (DRM)", UNSUPPORTED)
    seconds = float(getattr(getattr(audio, "info", None), "length", 0))
    if frames:  # mutagen would guess
        seconds = frames.frames * frames.frame.samples / frames.frame.rate
    is_silent_film = demuxer == "mov" and not codec
    if seconds < SHORTEST or demuxer is None or is_silent_film:
        return found, _length(file, demuxer)
    return found, seconds


def _length(file: Path, demuxer: str | None) -> float:
    """Return the length of a file of which mutagen knows none; raise if no decoder reads it."""
    import soundfile

    from vae_jax.features import audio

    try:
        with open(file, "rb") as content:  # libsndfile does not take the longest names
            seconds = float(soundfile.info(content).duration)
        if SHORTEST <= seconds < LONGEST:
            return seconds
    except soundfile.LibsndfileError as error:
        if demuxer is None:
            raise AudioError("no kind of audio that is known", NO_AUDIO) from error
    try:
        audio.load(file, sample_rate=8000, duration=1.0, excerpt="start", min_duration=0.0)
    except AudioError as error:
        if error.kind in (NO_AUDIO, DAMAGED, UNSUPPORTED):  # without ffmpeg, another may read it
            raise
    return 0.0


def _texts(tags: Any) -> Iterator[tuple[str, str]]:
    """Yield the names and the texts of all tags, whatever kind they are."""
    if tags is None:
        return
    if hasattr(tags, "getall"):  # ID3
        for frame in tags.values():
            yield from _frame(frame)
        return
    for name in tags.keys():  # noqa: SIM118 (not every kind can be iterated)
        value = tags[name]
        for one in value if isinstance(value, list) else [value]:
            if type(one).__name__.endswith(("ByteArrayAttribute", "BinaryValue")):  # ASF, APE
                continue
            one = one[0] if isinstance(one, tuple) and one else one  # MP4: (track, of how many)
            yield name.rpartition(":")[2].removeprefix("WM/"), _text(one)


def _frame(frame: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts of a frame of ID3."""
    text = getattr(frame, "text", None)
    if frame.FrameID == "SYLT":
        if frame.type in SUNG:
            yield "sylt", _joined([_text(part) for part, _ in frame.text])
    elif text is not None:
        name = frame.desc if frame.FrameID == "TXXX" else frame.FrameID
        texts = frame.genres if frame.FrameID == "TCON" else text
        for one in texts if isinstance(texts, list) else [texts]:
            yield name, _text(one)


def _joined(parts: Sequence[str]) -> str:
    """Join what SYLT stamps: syllables, where spaces or line breaks are among them, or lines."""
    are_lines = not any(part != part.strip() for part in parts)
    return ("\n" if are_lines else "").join(parts)


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _info(file: BinaryIO) -> Iterator[tuple[str, list[str]]]:
    """Yield the texts in the LIST INFO chunks of a wav file, by their names."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        following = file.tell() + size + size % 2
        if name == b"LIST" and size <= MAX_LYRICS and file.read(4) == b"INFO":
            chunk = file.read(size - 4)
            while len(chunk) >= 8:
                size = int.from_bytes(chunk[4:8], "little")
                text = decode(chunk[8 : 8 + size].rstrip(b"\0"))
                yield chunk[:4].decode("latin-1").lower(), [_CONTROL.sub("", text)]
                chunk = chunk[8 + size + size % 2 :]
        file.seek(following)


def _sidecar(file: Path) -> str:
    """Return the text of the lyrics file beside a song, or an empty string."""
    for suffix in SIDECARS:
        path = file.with_suffix(suffix)
        if not path.is_file():
            continue
        if path.stat().st_size > MAX_LYRICS:
            logging.warning("ignored %s: %d bytes are no lyrics", path, path.stat().st_size)
            continue
        return _CONTROL.sub("", decode(path.read_bytes()))
    return ""


def decode(content: bytes) -> str:
    """Decode a text of unknown origin: UTF-16 with its mark, UTF-8, else Western European."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return _text(content.decode(encoding))
    except UnicodeDecodeError:
        return _text(content.decode("cp1252", "replace"))
