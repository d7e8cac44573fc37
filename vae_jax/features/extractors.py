"""From one track to the arrays of its record: what `config.feature.name` selects.

`extract` calls `prepare` once, for what all tracks share, and every worker calls `build`. Nothing
heavy is imported before it is needed: JAX for audio, scikit-learn for lyrics, Arrow for parquet.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from vae_jax.errors import UserError
from vae_jax.features.errors import (
    AGAIN,
    LONG_LYRICS,
    MISSING,
    NEVER,
    NO_LYRICS,
    NO_VECTOR,
    UNREADABLE,
)
from vae_jax.features.origins import WITH_LYRICS
from vae_jax.manifest import Manifest, Track
from vae_jax.records import layout
from vae_jax.records.statistics import ArraySpec
from vae_jax.storage import files, urls

if TYPE_CHECKING:
    from vae_jax.features.audio import Audio
    from vae_jax.features.descriptors import Descriptors
    from vae_jax.features.embedding_file import EmbeddingFile
    from vae_jax.features.lyrics import LyricsEmbedding
    from vae_jax.features.spectral import AudioFeature

AUDIO_SETTINGS = (  # settings that `audio.load` takes
    "sample_rate",
    "duration",
    "excerpt",
    "num_windows",
    "min_duration",
    "refuse_truncated",
)
TIME_LIMIT = 600  # s to read a file, beyond what the window takes to play
LYRICS_VERSION = 2  # raise it when the same lyrics and settings give another embedding
LYRICS_MARKER = "lyrics-made-from.json"


@dataclass(frozen=True)
class Extracted:
    """What a track's record holds.

    Attributes
    ----------
    arrays
        The arrays by name; a missing one is stored as zeros and left out of the statistics.
    duration
        Length of the audio in seconds; 0 without audio.
    faults
        Why parts that the manifest names could not be used.
    decoder
        What read the audio.
    warnings
        What is odd about it.
    descriptors
        What `descriptors.describe` says of the audio; None without.
    """

    arrays: dict[str, np.ndarray]
    duration: float = 0.0
    faults: tuple["Refused", ...] = ()
    decoder: str = ""
    warnings: tuple[str, ...] = ()
    descriptors: "Descriptors | None" = None


class Refused(str):
    """Why a track has no arrays: of what `kind` that is, and when it is worth another `retry`."""

    kind: str
    retry: str

    def __new__(cls, reason: object, kind: str, retry: str = NEVER) -> "Refused":
        """Say it."""
        refused = super().__new__(cls, reason)
        refused.kind, refused.retry = kind, retry
        return refused


@dataclass(frozen=True)
class AudioExtractor:
    """Decodes a track's audio and computes one array, `features`; safe to call from threads."""

    settings: ConfigDict
    feature: "AudioFeature"

    @property
    def arrays(self) -> dict[str, ArraySpec]:
        """The specs of the arrays."""
        one = self.feature
        spec = ArraySpec(
            one.shape, one.dtype, window=one.window_frames, is_segments=one.is_segments
        )
        return {"features": spec}

    def __call__(self, track: Track) -> Extracted | Refused:
        """Return the track's arrays, or the reason why there are none."""
        from vae_jax.features import audio

        if track.audio_path is None:
            return Refused("its audio_path is empty", MISSING)
        limit = TIME_LIMIT + self.settings.duration
        try:
            sound = _within(limit, functools.partial(self._load, track.audio_path))
        except audio.AudioError as error:
            return Refused(error, error.kind, error.retry)
        except OSError as error:
            # A file that comes later is noticed by itself: its state is another one then.
            is_missing = isinstance(error, FileNotFoundError)
            kind, retry = (MISSING, NEVER) if is_missing else (UNREADABLE, AGAIN)
            reason = f"cannot read {track.audio_path}: {error.strerror or error}"
            return Refused(reason, kind, retry)
        values, described = self.feature.listen(sound.waveform)
        return Extracted(
            {"features": values},
            sound.duration,
            decoder=sound.decoder,
            warnings=sound.warnings,
            descriptors=described,
        )

    def _load(self, location: urls.Location) -> "Audio":
        from vae_jax.features import audio

        with urls.local(location) as path:
            return audio.load(path, **{name: self.settings[name] for name in AUDIO_SETTINGS})


@dataclass(frozen=True)
class LyricsExtractor:
    """Embeds a track's lyrics as one array, `features`; safe to call from threads."""

    embedding: "LyricsEmbedding"

    @property
    def arrays(self) -> dict[str, ArraySpec]:
        """The specs of the arrays."""
        return {"features": ArraySpec((self.embedding.dim,), "float32", isotropic=True)}

    def __call__(self, track: Track) -> Extracted | Refused:
        """Return the track's arrays, or the reason why there are none."""
        from vae_jax.features.lyrics_text import MAX_CHARACTERS, LyricsError

        try:
            vector = self.embedding.transform([track.lyrics])[0]
        except LyricsError as error:
            return Refused(error, NO_LYRICS)
        characters, read = len(track.lyrics), f"the first {MAX_CHARACTERS:,} characters are read"
        odd = [f"{LONG_LYRICS}: of {characters:,}, {read}"] if characters > MAX_CHARACTERS else []
        return Extracted({"features": vector}, warnings=tuple(odd))


@dataclass(frozen=True)
class EmbeddingExtractor:
    """Takes a track's vectors from a file as one array, `features`; safe to call from threads."""

    file: "EmbeddingFile"

    @property
    def arrays(self) -> dict[str, ArraySpec]:
        """The specs of the arrays."""
        return {"features": self.file.spec}

    def __call__(self, track: Track) -> Extracted | Refused:
        """Return the track's arrays, or the reason why there are none."""
        from vae_jax.features.embedding_file import VectorError

        try:
            return Extracted({"features": self.file.find(track.id)})
        except VectorError as error:
            return Refused(error, NO_VECTOR)


@dataclass(frozen=True)
class HybridExtractor:
    """Joins the `parts`, audio and lyrics, either of which a track may lack.

    `has_audio` and `has_lyrics` (uint8, 0 or 1) say which are there.
    """

    parts: Mapping[str, AudioExtractor | LyricsExtractor]

    @property
    def arrays(self) -> dict[str, ArraySpec]:
        """The specs of the arrays."""
        specs = {name: part.arrays["features"] for name, part in self.parts.items()}
        return specs | {f"has_{name}": ArraySpec((), "uint8") for name in self.parts}

    def __call__(self, track: Track) -> Extracted | Refused:
        """Return the track's arrays, or the reason why there are none."""
        results = {name: part(track) for name, part in self.parts.items()}
        found = {name: part for name, part in results.items() if isinstance(part, Extracted)}
        reasons = {name: part for name, part in results.items() if isinstance(part, Refused)}
        if not found:
            both = f"it has neither audio ({reasons['audio']}) nor lyrics ({reasons['lyrics']})"
            return Refused(both, reasons["audio"].kind, reasons["audio"].retry)
        given = {"audio": track.audio_path is not None, "lyrics": bool(track.lyrics.strip())}
        flags = {f"has_{name}": np.array(name in found, np.uint8) for name in results}
        return Extracted(
            {name: part.arrays["features"] for name, part in found.items()} | flags,
            max(part.duration for part in found.values()),
            tuple(
                Refused(f"no {name}: {reason}", reason.kind, reason.retry)
                for name, reason in reasons.items()
                if given[name]
            ),
            "".join(part.decoder for part in found.values()),
            tuple(warning for part in found.values() for warning in part.warnings),
            next((part.descriptors for part in found.values() if part.descriptors), None),
        )


Extractor = AudioExtractor | LyricsExtractor | EmbeddingExtractor | HybridExtractor


def build(feature: Mapping[str, Any], directory: Path, shared: str | None) -> Extractor:
    """Return the extractor for `config.feature` (as a plain dict).

    `shared` is what `prepare` returned for the records directory.
    """
    if feature["name"] == "musicnn":
        return _musicnn(feature)
    if feature["name"] not in (*WITH_LYRICS, "embedding"):
        return _audio(feature, feature["name"])
    assert shared is not None
    if feature["name"] == "embedding":
        return EmbeddingExtractor(_load_vectors(feature["embedding"], shared))
    lyrics_extractor = LyricsExtractor(_load_lyrics(directory / layout.LYRICS, shared))
    if feature["name"] == "lyrics_tfidf":
        return lyrics_extractor
    return HybridExtractor(
        {"audio": _audio(feature, feature["audio_feature"]), "lyrics": lyrics_extractor}
    )


def prepare(
    manifest: Manifest,
    feature: Mapping[str, Any],
    directory: Path,
    fitted: Mapping[str, Any] | None = None,
) -> str | None:
    """Bring what all tracks share up to date, and return its hash; None if they share nothing.

    Features with lyrics share `lyrics.json`, another model's vectors the file that has them, and
    MusiCNN's its weights.

    Parameters
    ----------
    fitted
        An embedding of lyrics (from `LyricsEmbedding.to_dict`) to use instead of learning one.

    Raises
    ------
    UserError
        If no track has lyrics to learn from, or the file of vectors or weights cannot be used.
    """
    if feature["name"] in WITH_LYRICS:
        return _prepare_lyrics(manifest, feature, directory, fitted)
    if feature["name"] == "embedding":
        from vae_jax.features import embedding_file

        return embedding_file.check(urls.location(feature["embedding"]), manifest)
    if feature["name"] == "musicnn":
        from vae_jax.features import musicnn

        return musicnn.digest(musicnn.load(feature))
    return None


def _prepare_lyrics(
    manifest: Manifest,
    feature: Mapping[str, Any],
    directory: Path,
    fitted: Mapping[str, Any] | None,
) -> str:
    """Bring `lyrics.json` up to date, the embedding that all lyrics go through.

    Returns a hash of it and of how lyrics are cleaned.

    It is learned from the whole manifest, and again when its lyrics or the settings of
    `config.feature` have changed.
    """
    texts = [text for text in manifest.columns.get("lyrics", ()) if text.strip()]
    path, marker = directory / layout.LYRICS, directory / LYRICS_MARKER
    settings = {
        "embed_dim": feature["lyrics_embed_dim"],
        "max_features": feature["lyrics_max_features"],
    }
    made_from = files.fingerprint(LYRICS_VERSION, fitted or [_hash(texts), settings])
    sha256 = files.sha256(path) if path.exists() else None
    if sha256 and _read(marker) == {"made_from": made_from, "sha256": sha256}:
        return f"{sha256}-{LYRICS_VERSION}"
    if not texts and not fitted:
        raise UserError(
            f"no track in {manifest.path} has lyrics, which config.feature.name="
            f"{feature['name']} needs: fill the column lyrics, or use a feature of audio (mfcc)."
        )
    from vae_jax.features import lyrics

    embedding = (
        lyrics.LyricsEmbedding.from_dict(fitted) if fitted else lyrics.fit(texts, **settings)
    )
    embedding.save(path)
    sha256 = files.sha256(path)
    files.write_json(marker, {"made_from": made_from, "sha256": sha256})
    return f"{sha256}-{LYRICS_VERSION}"  # the same embedding of lyrics that are cleaned otherwise


def _within(seconds: float, read: Callable[[], "Audio"]) -> "Audio":
    """Return what `read` does, or give up on it, such as when a network's disk does not answer.

    A thread that hangs cannot be ended; as a daemon, it does not keep the process from ending.
    """
    future: Future[Audio] = Future()

    def work() -> None:
        try:
            future.set_result(read())
        except BaseException as error:  # for whoever waits
            future.set_exception(error)

    Thread(target=work, daemon=True).start()
    if not wait([future], seconds).done:
        raise TimeoutError(f"it took longer than {seconds:g} s")
    return future.result()


def _audio(feature: Mapping[str, Any], name: str) -> AudioExtractor:
    from vae_jax.features import spectral

    settings = ConfigDict({**feature, "name": name})
    return AudioExtractor(settings, spectral.audio_feature(settings))


def _musicnn(feature: Mapping[str, Any]) -> AudioExtractor:
    from vae_jax.features import musicnn

    settings = ConfigDict({**feature, "sample_rate": musicnn.SPEC.sample_rate})
    return AudioExtractor(settings, musicnn.audio_feature(feature, musicnn.load(feature)))


@functools.lru_cache(maxsize=1)
def _load_lyrics(path: Path, sha256: str) -> "LyricsEmbedding":
    """Read an embedding once per process and content."""
    from vae_jax.features import lyrics

    return lyrics.load(path)


@functools.lru_cache(maxsize=1)
def _load_vectors(location: str, sha256: str) -> "EmbeddingFile":
    """Open a file of vectors once per process and content."""
    from vae_jax.features import embedding_file

    return embedding_file.load(urls.location(location))


def _hash(texts: list[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()


def _read(marker: Path) -> Any:
    """Read a marker; a missing or damaged one is None."""
    try:
        return files.read_json(marker)
    except (OSError, UserError):
        return None
