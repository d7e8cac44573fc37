"""From one track to the arrays of its record: what `config.feature.name` selects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vae_jax.features import audio, spectral
from vae_jax.manifest import Track
from vae_jax.records import ArraySpec


@dataclass(frozen=True)
class Extracted:
    """A track's arrays by name, and the duration of its audio in seconds."""

    arrays: dict[str, np.ndarray]
    duration: float


@dataclass(frozen=True)
class AudioExtractor:
    """Decodes a track's audio and computes one array, `features`; safe to call from threads."""

    settings: ConfigDict
    feature: spectral.AudioFeature

    @property
    def arrays(self) -> dict[str, ArraySpec]:
        """The specs of the arrays."""
        return {"features": ArraySpec(self.feature.shape, self.feature.dtype)}

    def __call__(self, track: Track) -> Extracted | str:
        """Return the track's arrays, or the reason why there are none."""
        if track.audio_path is None:
            return "its audio_path is empty"
        names = ("sample_rate", "duration", "excerpt", "min_duration")
        window = {name: self.settings[name] for name in names}
        try:
            sound = audio.load(track.audio_path, **window)
        except audio.AudioError as error:
            return str(error)
        return Extracted({"features": self.feature(sound.waveform)}, sound.duration)


def build(feature: Mapping[str, Any]) -> AudioExtractor:
    """Return the extractor for `config.feature` (as a plain dict)."""
    settings = ConfigDict(dict(feature))
    return AudioExtractor(settings, spectral.audio_feature(settings))
