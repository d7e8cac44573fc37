"""A model with everything it needs to see tracks: what travels inside a checkpoint.

`train` makes it from the records, `embed` restores it from a checkpoint alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import linen as nn

from vae_jax import config as config_lib
from vae_jax import models
from vae_jax.models.declared import models_declared
from vae_jax.records.reader import Records
from vae_jax.records.statistics import ArraySpec, Statistics, arrays_from_dict
from vae_jax.training import track_view, views
from vae_jax.training.whitening import Whitening


@dataclass(frozen=True)
class ModelSpec:
    """What a model was built for.

    Attributes
    ----------
    config
        The config as the user gave it, as a plain dict.
    arrays, statistics
        The stored arrays' specs and statistics, by name.
    classes
        The values of the condition's column; empty without a condition.
    lyrics
        The fitted lyrics embedding, or None.
    num_steps
        How many steps training takes, from `config.train` and the number of tracks.
    lyrics_weight
        The weight of lyrics beside audio, from `config.feature` and, for modalities, from how many
        tracks have either.
    whitening
        The whitening of segments' descriptions, for the track VAE; else None.
    """

    config: Mapping[str, Any]
    arrays: Mapping[str, ArraySpec]
    statistics: Mapping[str, Statistics]
    classes: tuple[str, ...]
    lyrics: Mapping[str, Any] | None
    num_steps: int
    lyrics_weight: float
    whitening: Whitening | None = None

    @classmethod
    def of(
        cls, config: Mapping[str, Any], records: Records, conditions: Sequence[str]
    ) -> "ModelSpec":
        """Describe a model for records; `conditions` has each track's class, "" if unknown.

        Raises
        ------
        UserError
            If the model cannot see such features.
        """
        classes = tuple(sorted(set(conditions) - {""}))
        views.check(config, records.arrays)
        statistics, whitening = dict(records.statistics), None
        sees = models_declared()[config["model"]["name"]].sees
        if sees == "vector" and any(spec.is_segments for spec in records.arrays.values()):
            statistics["features"] = views.measure_means(records)
        if sees == "segments":
            statistics["description"], whitening = track_view.measure_descriptions(config, records)
        weight = config["feature"]["lyrics_weight"]
        if sees == "modalities":
            weight *= rarity(records)
        num_steps = _num_steps(config["train"], len(records))
        return cls(
            config,
            records.arrays,
            statistics,
            classes,
            records.lyrics,
            num_steps,
            weight,
            whitening,
        )

    @property
    def resolved(self) -> dict[str, Any]:
        """The config, with derived values in the place of those that they are derived from."""
        feature = {**self.config["feature"], "lyrics_weight": self.lyrics_weight}
        train = {**self.config["train"], "num_steps": self.num_steps}
        return {**self.config, "feature": feature, "train": train}

    def build(self) -> tuple[nn.Module, views.View | track_view.TrackView]:
        """Return the model, and the view through which it sees stored arrays."""
        config, white = self.resolved, self.whitening
        view = views.build(config, self.arrays, self.statistics, len(self.classes), white)
        measured = {} if white is None else {"between": white.between}
        return models.build(config, view.input_shape, **measured), view

    def class_numbers(self, conditions: Sequence[str]) -> np.ndarray | None:
        """Return each track's class as a number, [N] int32, -1 where unknown, or None."""
        if not self.classes:
            return None
        numbers = {name: i for i, name in enumerate(self.classes)}
        return np.array([numbers.get(value, -1) for value in conditions], np.int32)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-like values."""
        return {
            "config": self.config,
            "arrays": {name: spec.__dict__ for name, spec in self.arrays.items()},
            "statistics": {name: part.to_dict() for name, part in self.statistics.items()},
            "classes": list(self.classes),
            "lyrics": self.lyrics,
            "num_steps": self.num_steps,
            "lyrics_weight": self.lyrics_weight,
            "whitening": None if self.whitening is None else self.whitening.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelSpec":
        """Rebuild from `to_dict`; keys that a config lacks have their defaults.

        Early checkpoints have the derived values inside their config.
        """
        config = config_lib.to_dict(config_lib.from_dict(values["config"]))
        statistics = values["statistics"].items()
        return cls(
            config,
            arrays_from_dict(values["arrays"]),
            {name: Statistics.from_dict(part) for name, part in statistics},
            tuple(values.get("classes", ())),
            values.get("lyrics"),
            values.get("num_steps", config["train"]["num_steps"]),
            values.get("lyrics_weight", config["feature"]["lyrics_weight"]),
            Whitening.from_dict(values["whitening"]) if values.get("whitening") else None,
        )


def _num_steps(settings: Mapping[str, Any], num_tracks: int) -> int:
    """Return how many steps to train for: enough for `num_epochs`, but at least `min_steps`."""
    if settings["num_steps"] is not None:
        return settings["num_steps"]
    training = num_tracks * (1 - settings["validation_fraction"])
    epochs = math.ceil(settings["num_epochs"] * training / settings["batch_size"])
    return max(settings["min_steps"], epochs)


def rarity(records: Records) -> float:
    """Return the weight of lyrics beside audio that makes up for how many tracks lack either.

    The latents that are filled in for a track echo its other modality, and so count for that one.
    Latents are multiplied by the root, which corrects the sum of squares in a distance.
    """
    with_audio = records.statistics["audio"].count  # counts frames if these are stored
    if records.num_frames.any():
        with_audio = int(np.count_nonzero(records.num_frames))
    with_lyrics = records.statistics["lyrics"].count
    return math.sqrt(max(with_audio, 1) / max(with_lyrics, 1))
