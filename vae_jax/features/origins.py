"""What each record is made from, so that nothing unchanged is extracted again.

A record depends on its track's audio and lyrics alone, as far as the feature uses them: never on
labels. A checksum tells audio that was touched, copied or moved from audio that was changed. It is
computed only if size or time differ from those that are known.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c

from vae_jax.manifest import Track
from vae_jax.storage import urls

WITH_LYRICS = ("lyrics_tfidf", "hybrid")
WITHOUT_AUDIO = ("lyrics_tfidf", "embedding")
CHUNK_BYTES = 2**20


class Origin(NamedTuple):
    """What one track's record is made from.

    Attributes
    ----------
    id
        The track's id.
    state
        The audio file's size and what changes when it is written; None without one.
    checksum
        CRC32C of the audio file; None if unknown, as for files in object stores.
    lyrics
        Hash of the lyrics; empty where the feature does not use them.
    """

    id: str
    state: list[Any] | None
    checksum: int | None
    lyrics: str

    @property
    def content(self) -> list[Any]:
        """What stays the same when the audio file is touched, copied or moved."""
        return [self.id, self.state if self.checksum is None else self.checksum, self.lyrics]

    def is_same(self, before: "Origin", track: Track) -> bool:
        """Say whether a record made from `before` is that of the track as it is now."""
        if (self.id, self.lyrics) != (before.id, before.lyrics):
            return False
        if self.state == before.state:
            return True
        if self.state is None or before.state is None or before.checksum is None:
            return False
        return self.state[0] == before.state[0] and checksum(track) == before.checksum


def look(tracks: Sequence[Track], feature: Mapping[str, Any]) -> list[Origin]:
    """Return what the records of tracks would be made from now, without checksums."""
    name = feature["name"]
    uses_audio, uses_lyrics = name not in WITHOUT_AUDIO, name in WITH_LYRICS
    states = urls.states(track.audio_path if uses_audio else None for track in tracks)
    return [
        Origin(track.id, state, None, _hash(track.lyrics) if uses_lyrics else "")
        for track, state in zip(tracks, states, strict=True)
    ]


def checksum(track: Track) -> int | None:
    """Return the CRC32C of a track's audio file; None if it is elsewhere or unreadable.

    Only a regular file is read: /dev/zero has no end, and a FIFO waits for a writer.
    """
    if not isinstance(track.audio_path, Path):
        return None
    value = 0
    try:
        if not track.audio_path.is_file():
            return None
        with open(track.audio_path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                value = google_crc32c.extend(value, chunk)
    except OSError:
        return None
    return value


def _hash(lyrics: str) -> str:
    return hashlib.sha256(lyrics.encode()).hexdigest()[:16]
