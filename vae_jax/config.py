"""Every config key with its default, its rule and its meaning, and what makes a config valid.

`configs/*.py` start from `get_config()` and state only what they change. `main` validates the
resolved config once; the stages may then rely on it.
"""

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vae_jax.errors import UserError
from vae_jax.models.declared import models_declared
from vae_jax.rules import (
    COLUMN,
    COLUMNS,
    COUNT,
    FLAG,
    NOT_NEGATIVE,
    POSITIVE,
    SIZE,
    Key,
    Rule,
    above_zero,
    all_of,
    at_least,
    between,
    one_of,
    sizes,
)
from vae_jax.storage import urls

FEATURES = (
    *("mfcc", "mfcc_frames", "logmelspec", "lyrics_tfidf", "hybrid", "embedding"),
    "musicnn",
)
AUDIO_FEATURES = ("mfcc", "logmelspec")  # features that the hybrid can join to lyrics
FRAMES = ("mfcc_frames", "logmelspec")  # features that change over time
SEGMENTS = (*FRAMES, "embedding", "musicnn")  # that may be cut into segments, or hold some
MUSICNN = ("MSD_musicnn", "MTT_musicnn")  # the models of `features.musicnn`
# What networks of features were trained on, where that was not music without labels.
TRAINED_ELSEWHERE = {"musicnn": "features trained elsewhere with tags"}
SPECTRAL = ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "fmin", "fmax")
CLUSTERERS = ("kmeans", "agglomerative", "dbscan", "hdbscan", "gmm", "spectral")
PRIORS = ("normal", "mixture")
PROJECTIONS = ("umap", "tsne", "pca")
BASELINE_TITLES = {"pca": "PCA", "raw": "raw features", "plda": "PLDA", "ae": "autoencoder"}
BASELINES = tuple(BASELINE_TITLES)
LINKAGES = ("ward", "average", "complete", "single")
AUTO = "auto"  # what the data or the machine say

_NAME = Rule(
    lambda value: bool(re.fullmatch(r"\w[\w.-]{0,99}", value)),
    "up to 100 letters, digits, _, - and ., since it names folders",
)
_LOCATION = Rule(
    lambda value: bool(value) and ("://" not in value or isinstance(urls.location(value), str)),
    "a path, or a URL of an object store (gs://, s3://, az://)",
)
_FOLDER = Rule(
    lambda value: bool(value) and "://" not in value,
    "a folder, not a URL: mount the bucket as one",
)
_START = Rule(
    lambda value: bool(value) and "://" not in value,
    '"previous", "scratch", or a folder of checkpoints or of results',
)
_MODEL = Rule(lambda value: value in models_declared(), f"one of {', '.join(models_declared())}")
_SEED = Rule(lambda value: 0 <= value < 2**31, "from 0 to 2**31 - 1")
_NUM_CLUSTERS = Rule(
    lambda value: value == AUTO or (type(value) is int and 2 <= value < 2**31),
    f'a whole number of 2 or more, or "{AUTO}"',
)
_RESIDENT = Rule(
    lambda value: value == AUTO or (type(value) in (int, float) and NOT_NEGATIVE.accepts(value)),
    f'0 or more, or "{AUTO}"',
)

# The default, the rule, and the meaning with its unit.
KEYS: dict[str, Key] = {
    "name": Key("default", _NAME, "names the default output folders"),
    "manifest": Key(None, _LOCATION, "the CSV file that lists the tracks; must be set", str),
    "seed": Key(0, _SEED, "the seed of everything random"),
    "num_seeds": Key(1, at_least(1, 1024), "models trained together, with seeds from `seed` on"),
    "data_dir": Key("data", _LOCATION, "feature records go to <data_dir>/records/"),
    "checkpoint_dir": Key("checkpoints", _FOLDER, "checkpoints go to <checkpoint_dir>/<name>-..."),
    "baselines": Key(("pca", "raw"), all_of(BASELINES), "clustered beside the VAE"),
    "duplicates": Key(
        "keep", one_of(("keep", "drop")), "drop: one recording counts once, in its first file"
    ),
    "feature.name": Key("mfcc", one_of(FEATURES), "what is extracted from each track"),
    "feature.sample_rate": Key(22050, between(1000, 384000), "Hz"),
    "feature.duration": Key(30.0, above_zero(36000), "s of each track, at most, over all windows"),
    "feature.excerpt": Key(
        "start",
        one_of(("start", "center", "spread")),
        "which part of a longer track: its start, its center, or windows spread over it",
    ),
    "feature.num_windows": Key(10, at_least(1, 1024), "spread: equal parts of duration, evenly"),
    "feature.min_duration": Key(0.5, NOT_NEGATIVE, "s; shorter tracks fail"),
    "feature.refuse_truncated": Key(
        False, FLAG, "fail files that are shorter than their headers say"
    ),
    "feature.n_fft": Key(2048, between(16, 65536), "samples"),
    "feature.win_length": Key(None, COUNT, "samples; n_fft when not set", int),
    "feature.hop_length": Key(512, at_least(1, 65536), "samples"),
    "feature.n_mels": Key(128, between(1, 1024), "mel bands"),
    "feature.fmin": Key(0.0, Rule(lambda value: value >= 0, "0 or more"), "Hz"),
    "feature.fmax": Key(None, POSITIVE, "Hz; half the sample rate when not set", float),
    "feature.n_mfcc": Key(20, at_least(1, 1024), "coefficients"),
    "feature.deltas": Key(False, FLAG, "mfcc: add mean and std of the first differences"),
    "feature.audio_feature": Key("mfcc", one_of(AUDIO_FEATURES), "hybrid: the audio's feature"),
    "feature.lyrics_embed_dim": Key(128, NOT_NEGATIVE, "columns of the lyrics' SVD; 0 = no SVD"),
    "feature.lyrics_max_features": Key(8192, COUNT, "terms of words, and as many of n-grams"),
    "feature.lyrics_weight": Key(
        1.0, NOT_NEGATIVE, "weight of lyrics in distances; multimodal: where all have both"
    ),
    "feature.embedding": Key(
        None, _LOCATION, "embedding: another model's vectors, .npz, .npy or .parquet", str
    ),
    "feature.musicnn": Key(
        "MSD_musicnn",
        one_of(MUSICNN),
        "musicnn: trained on the Million Song Dataset, or MTT's tags",
    ),
    "feature.musicnn_dir": Key(
        "data/musicnn", _LOCATION, "musicnn: the folder into which its weights were downloaded"
    ),
    "feature.shard_size": Key(64, COUNT, "tracks per TFRecord shard"),
    "feature.num_workers": Key(0, at_least(0, 1024), "decoding workers; 0 = one per core"),
    "feature.runner": Key(
        "local", one_of(("local", "beam")), 'what extracts: "local" processes, or Apache "beam"'
    ),
    "model.name": Key("mlp", _MODEL, "the model to train"),
    "model.latent_dim": Key(16, SIZE, "size of the latent; multimodal: of each modality's"),
    "model.hidden_dims": Key(
        (256, 128), sizes(0), "the encoder's layers; the decoder mirrors them"
    ),
    "model.channels": Key(
        (32, 64, 128, 256), sizes(1), "conv2d: the encoder's levels; each halves time and mel"
    ),
    "model.kernel_size": Key(
        2,
        Rule(lambda value: value in (2, 3), "2 or 3"),
        "conv2d: 2 = dense on 2 x 2 patches, 3 = convolutions of stride 2",
    ),
    "model.encoder": Key(
        "mlp", one_of(("mlp", "conv2d")), "track: mlp sees descriptions of segments, conv2d all"
    ),
    "model.num_segments": Key(16, SIZE, "track: segments of each track in a training step"),
    "model.contrast": Key(1.0, NOT_NEGATIVE, "track: weight of the contrastive term"),
    "model.segment_frames": Key(
        128, between(1, 65536), "frames of the segments cut from tracks; embedding: 1"
    ),
    "model.dtype": Key(
        "float32",
        one_of(("float32", "bfloat16")),
        "conv2d's activations; 16 bits suit accelerators",
    ),
    "model.condition": Key("", COLUMN, "manifest column that the model is told: supervised then"),
    "model.deterministic": Key(False, FLAG, "a plain autoencoder: no sampling, no KL term"),
    "model.input_noise": Key(0.2, NOT_NEGATIVE, "added to the standardised input in training"),
    "model.prior": Key(
        "normal", one_of(PRIORS), 'or "mixture" of Gaussians, which finds clusters as it trains'
    ),
    "model.num_components": Key(10, at_least(2, 1024), "components of the mixture"),
    "model.beta": Key(1.0, NOT_NEGATIVE, "weight of the KL term"),
    "model.beta_warmup_steps": Key(500, NOT_NEGATIVE, "steps over which beta rises from 0"),
    "model.free_bits": Key(0.0, NOT_NEGATIVE, "nats per latent dimension without a KL term"),
    "model.learned_scale": Key(
        True, FLAG, "learn the Gaussian likelihood's scale, or keep it at 1"
    ),
    "train.start_from": Key(
        "previous",
        _START,
        "scratch; a trained model's folder; or the outdir's previous one, if its tracks changed",
    ),
    "train.num_steps": Key(None, COUNT, "when not set: num_epochs, but at least min_steps", int),
    "train.num_epochs": Key(20, COUNT, "passes over the training tracks"),
    "train.min_steps": Key(3000, COUNT, "steps, where num_epochs would be fewer"),
    "train.batch_size": Key(64, at_least(1, 2**20), "tracks, over all devices"),
    "train.learning_rate": Key(
        1e-3, POSITIVE, "peak of a linear warm-up and cosine decay; a tenth trains a model on"
    ),
    "train.warmup_steps": Key(100, NOT_NEGATIVE, "steps of the warm-up"),
    "train.weight_decay": Key(1e-4, NOT_NEGATIVE, "AdamW's decay"),
    "train.clip_norm": Key(1.0, POSITIVE, "largest norm of the gradient over all parameters"),
    "train.skip_nonfinite": Key(False, FLAG, "skip batches with a NaN loss instead of stopping"),
    "train.validation_fraction": Key(0.1, between(0, 0.5), "share of the tracks that is held out"),
    "train.log_every": Key(50, at_least(1, 10000), "steps; also the steps per dispatch"),
    "train.eval_every": Key(250, COUNT, "steps"),
    "train.checkpoint_every": Key(250, COUNT, "steps; the best on validation is embedded"),
    "train.resident_gib": Key(
        AUTO,
        _RESIDENT,
        "GiB; features up to this size stay on the device, larger ones stream; auto = a quarter of "
        "its memory",
        object,
    ),
    "train.patience": Key(0, NOT_NEGATIVE, "evaluations without improvement; 0 = to the end"),
    "embed.batch_size": Key(4096, at_least(1, 2**20), "tracks; fewer where they are large"),
    "embed.format": Key(
        "npz", one_of(("npz", "sharded")), '"sharded" for embeddings that do not fit in memory'
    ),
    "embed.shard_size": Key(16384, COUNT, "tracks; what a process takes, and a killed run keeps"),
    "cluster.method": Key("kmeans", one_of(CLUSTERERS), "the clusterer"),
    "cluster.num_clusters": Key(10, _NUM_CLUSTERS, 'or "auto": chosen by the data', object),
    "cluster.num_seeds": Key(5, COUNT, "starts of the clusterer for every model"),
    "cluster.n_init": Key(10, COUNT, "restarts of k-means and of the Gaussian mixture"),
    "cluster.eps": Key(None, POSITIVE, "DBSCAN's radius; from the k-distances when not set", float),
    "cluster.min_samples": Key(10, COUNT, "DBSCAN and HDBSCAN"),
    "cluster.linkage": Key("ward", one_of(LINKAGES), "agglomerative"),
    "cluster.label": Key("label", COLUMN, "manifest column that the clusters are scored against"),
    "cluster.silhouette_sample": Key(10000, at_least(2), "tracks, at most, in O(n^2) metrics"),
    "visualize.method": Key("umap", one_of(PROJECTIONS), "the projection"),
    "visualize.color_by": Key(
        ("label", "language", "genre"), COLUMNS, "manifest columns; the default ones where present"
    ),
    "visualize.n_neighbors": Key(15, at_least(2, 1000), "UMAP: neighbours of each track"),
    "visualize.min_dist": Key(0.1, between(0, 1), "UMAP: least distance in the plane"),
    "visualize.perplexity": Key(30.0, above_zero(1000), "t-SNE: a third of its neighbours"),
}
PLACES = ("manifest", "data_dir", "checkpoint_dir")
SECTIONS = tuple(dict.fromkeys(name.partition(".")[0] for name in KEYS))


def get_config() -> ConfigDict:
    """Return the defaults that all configs share."""
    config = ConfigDict()
    for name, key in KEYS.items():
        section, _, last = name.rpartition(".")
        if section and section not in config:
            config[section] = ConfigDict()
        (config[section] if section else config)[last] = key.field()
    return config


def lookup(config: ConfigDict, name: str) -> Any:
    """Return the value of a key such as "model.latent_dim"."""
    for part in name.split("."):
        config = config[part]
    return config


def unknown_key(name: str) -> UserError:
    """Return the error that says that there is no such key, and which one may be meant."""
    last = {key.rpartition(".")[2]: key for key in reversed(KEYS)}
    section, _, word = name.rpartition(".")
    if name in SECTIONS:
        section, word = name, ""
    if close := difflib.get_close_matches(word, last, 1):
        hint = f"did you mean config.{last[close[0]]}?"
    else:
        beside = [key for key in KEYS if section and key.startswith(f"{section}.")]
        hint = f"there are {', '.join(beside or SECTIONS)}."
    return UserError(f"config.{name} is not a config key: {hint}")


def validate(config: ConfigDict) -> None:
    """Raise a `UserError` that names the first key that is unknown, missing or out of range."""
    _check_keys(config)
    for name, key in KEYS.items():
        value = lookup(config, name)
        if not key.has_type(value):
            raise UserError(f"config.{name} is {value!r}, but must be a {key.value_type.__name__}.")
        if value is None and key.default is None:
            continue
        if not key.rule.accepts(value):
            raise UserError(f"config.{name} is {value!r}, but must be {key.rule.requirement}.")
    _check_feature(config.feature)
    if config.feature.excerpt == "spread":
        _check_windows(config.feature, config.model.segment_frames)
    _check_model(config)
    if config.embed.format == "sharded" and config.cluster.method != "kmeans":
        raise UserError(
            f"config.cluster.method={config.cluster.method} needs all latents in memory: use "
            "kmeans, or config.embed.format=npz."
        )


def _check_keys(config: ConfigDict) -> None:
    """Check that a config has exactly the keys that there are."""
    found = set(_names(config))
    if unknown := sorted(found - KEYS.keys()):
        raise unknown_key(unknown[0])
    if missing := sorted(KEYS.keys() - found):
        raise UserError(f"config.{missing[0]} is missing: start from vae_jax.config.get_config().")


def _names(config: ConfigDict, where: str = "") -> list[str]:
    names: list[str] = []
    for key, value in config.items():
        is_section = isinstance(value, ConfigDict)
        names += _names(value, f"{where}{key}.") if is_section else [f"{where}{key}"]
    return names


def _check_feature(feature: ConfigDict) -> None:
    """Check what keys of `config.feature` demand of each other."""
    nyquist = feature.sample_rate / 2
    fmax = nyquist if feature.fmax is None else feature.fmax
    if not feature.fmin < fmax <= nyquist:
        raise UserError(
            f"config.feature.fmin ({feature.fmin} Hz) must lie below config.feature.fmax "
            f"({fmax} Hz), and that at or below half the sample rate ({nyquist} Hz)."
        )
    if (feature.name == "embedding") != (feature.embedding is not None):
        raise UserError(
            "config.feature.name=embedding and config.feature.embedding=PATH, a file of another "
            f"model's vectors, need each other, but they are {feature.name!r} and "
            f"{feature.embedding!r}: set both or neither."
        )
    if feature.name == "musicnn":
        for name in SPECTRAL:
            if feature[name] != KEYS[f"feature.{name}"].default:
                raise UserError(
                    f"config.feature.{name} is {feature[name]}, but config.feature.name=musicnn "
                    "brings what its network was trained on: leave it out."
                )
    if feature.min_duration > feature.duration:
        raise UserError(
            f"config.feature.min_duration ({feature.min_duration} s) must not exceed "
            f"config.feature.duration ({feature.duration} s), or every track would be too short."
        )
    for low, high in (("win_length", "n_fft"), ("n_mfcc", "n_mels")):
        if feature[low] is not None and feature[low] > feature[high]:
            raise UserError(
                f"config.feature.{low} ({feature[low]}) must not exceed "
                f"config.feature.{high} ({feature[high]})."
            )


def _check_model(config: ConfigDict) -> None:
    """Check that the model does what its keys ask for."""
    model, feature = config.model, config.feature
    declared = models_declared()[model.name]
    is_fused = declared.sees == "vector" and feature.name == "hybrid"
    if feature.name not in declared.features or (is_fused and feature.audio_feature in FRAMES):
        raise UserError(
            f"config.model.name={model.name} is not for config.feature.name={feature.name}"
            + (f" with audio_feature={feature.audio_feature}" if is_fused else "")
            + f": it sees {', '.join(declared.features)}"
            + (" with audio_feature=mfcc." if is_fused else ".")
        )
    if model.prior == "mixture" and model.deterministic:
        raise UserError(
            "config.model.prior=mixture is not for config.model.deterministic=True: a plain "
            "autoencoder has no prior."
        )
    if "plda" in config.baselines and feature.name not in SEGMENTS:
        raise UserError(
            f"config.baselines=plda is not for config.feature.name={feature.name}: it needs the "
            f"segments of tracks ({', '.join(SEGMENTS)})."
        )
    asked = {
        "condition": model.condition and "model.condition",
        "deterministic": model.deterministic and "model.deterministic",
        "ae": "ae" in config.baselines and "baselines=ae",
    }
    for what in declared.refuses:
        if asked[what]:
            able = [name for name, one in models_declared().items() if what not in one.refuses]
            raise UserError(
                f"config.{asked[what]} is not for config.model.name={model.name}: use "
                f"{' or '.join(able)}."
            )


def _check_windows(feature: ConfigDict, segment_frames: int) -> None:
    """Refuse windows without a sample, or too short for the segments that are cut from them."""
    audio_feature = feature.audio_feature if feature.name == "hybrid" else feature.name
    needed = 1
    if audio_feature in FRAMES:
        needed = (segment_frames - 1) * feature.hop_length + feature.n_fft % 2  # samples
    if round(feature.duration * feature.sample_rate / feature.num_windows) < needed:
        raise UserError(
            f"config.feature.num_windows ({feature.num_windows}) cuts config.feature.duration "
            f"({feature.duration} s) into windows shorter than config.model.segment_frames "
            f"({segment_frames}): take fewer windows, or a longer duration."
        )


def feature_settings(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `config.feature` that decide what is stored.

    The content of `embedding` decides too, but not where that file is.
    """
    return _without(feature, "num_workers", "runner", "lyrics_weight", *_elsewhere(feature))


def training_settings(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `config.feature` that decide what a model learns."""
    return _without(feature, "num_workers", "runner", "shard_size", *_elsewhere(feature))


def shared_settings(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `config.feature` in which a model and new features must agree.

    New features may show other parts of tracks. The checkpoint itself says how to embed lyrics.
    """
    which = ("duration", "min_duration", "excerpt", "num_windows")
    lyrics = ("lyrics_embed_dim", "lyrics_max_features", "lyrics_weight")
    model = {"musicnn": feature["musicnn"]}
    return _without(training_settings(feature), *which, *lyrics) | model


def _elsewhere(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys that say where files are, and the one that only MusiCNN's features have."""
    places = ("embedding", "musicnn_dir")
    return places if feature["name"] == "musicnn" else (*places, "musicnn")


def _without(feature: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in feature.items() if key not in names}


def described(feature: Mapping[str, Any]) -> str:
    """Return the name of `config.feature`, for rows of tables, and who else trained it."""
    name = feature["name"]
    return f"{name} ({TRAINED_ELSEWHERE[name]})" if name in TRAINED_ELSEWHERE else name


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Return the config as plain dicts and lists, equal to what JSON would give back."""
    return json.loads(json.dumps(config.to_dict()))


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
    """Rebuild a config from `to_dict`; keys added since then keep their defaults."""
    config = get_config()
    _update(config, values, "config")
    return config


def from_elsewhere(values: Mapping[str, Any]) -> ConfigDict:
    """Rebuild a config that came with a model, perhaps from another machine.

    The places that it names are not followed: those of this machine are the defaults or given.
    """
    config, defaults = from_dict(values), get_config()
    for name in PLACES:
        config[name] = defaults[name]
    return config


def _update(config: ConfigDict, values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if key not in config:
            raise UserError(
                f"{where}.{key} is not a key of this version of vae_jax: "
                "use the version that wrote it, or train again."
            )
        if isinstance(config[key], ConfigDict) and isinstance(value, Mapping):
            _update(config[key], value, f"{where}.{key}")
            continue
        try:
            config[key] = tuple(value) if isinstance(value, list) else value
        except TypeError as error:
            raise UserError(f"{where}.{key} is {value!r}, which is of the wrong type.") from error
