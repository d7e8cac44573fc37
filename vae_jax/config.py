"""Every config key with its default, unit and range, and the rules for a valid config.

`configs/*.py` start from `get_config()` and state only what they change. `main` validates the
resolved config once; the stages may then rely on it.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from vae_jax.errors import UserError
from vae_jax.storage import urls

FEATURES = ("mfcc", "mfcc_frames", "logmelspec", "lyrics_tfidf", "hybrid")
AUDIO_FEATURES = ("mfcc", "logmelspec")  # that the hybrid can join to lyrics
MODELS = ("mlp", "conv2d", "multimodal", "track")
CLUSTERERS = ("kmeans", "agglomerative", "dbscan", "hdbscan", "gmm", "spectral")
PRIORS = ("normal", "mixture")
PROJECTIONS = ("umap", "tsne", "pca")
BASELINES = ("pca", "raw", "ae")
AUTO = "auto"  # the number of clusters that `selection` finds


def get_config() -> ConfigDict:
    """Return the defaults that all configs share."""
    config = ConfigDict()
    config.name = "default"  # names the default output folders
    config.manifest = "data/demo/metadata.csv"
    config.seed = 0
    config.num_seeds = 1  # models trained together, with the seeds from `seed` on
    config.data_dir = "data"  # feature records go to <data_dir>/records/
    config.checkpoint_dir = "checkpoints"
    config.baselines = ("pca", "raw")  # clustered beside the VAE

    config.feature = feature = ConfigDict()
    feature.name = "mfcc"
    feature.sample_rate = 22050  # Hz
    feature.duration = 30.0  # s, at most, of each track
    feature.excerpt = "start"  # which part of a longer track: "start" or "center"
    feature.min_duration = 0.5  # s; shorter tracks fail
    feature.n_fft = 2048  # samples
    feature.win_length = placeholder(int)  # samples; n_fft when not set
    feature.hop_length = 512  # samples
    feature.n_mels = 128
    feature.fmin = 0.0  # Hz
    feature.fmax = placeholder(float)  # Hz; half the sample rate when not set
    feature.n_mfcc = 20
    feature.deltas = False  # add the mean and std of the coefficients' first differences
    feature.audio_feature = "mfcc"  # of the hybrid: mfcc or logmelspec
    feature.lyrics_embed_dim = 128  # columns of the lyrics' SVD; 0 = no SVD
    feature.lyrics_max_features = 8192  # terms of words, and as many of character n-grams
    feature.lyrics_weight = 1.0  # of lyrics beside audio in distances, multimodal: if all have both
    feature.shard_size = 64  # tracks per TFRecord shard
    feature.num_workers = 0  # decoding workers; 0 = one per core
    feature.runner = "local"  # of the extraction: "local" processes, or "beam"

    config.model = model = ConfigDict()
    model.name = "mlp"
    model.latent_dim = 16  # multimodal: of each modality
    model.hidden_dims = (256, 128)  # mlp: of the encoder; the decoder mirrors them
    model.channels = (32, 64, 128, 256)  # conv2d: of the encoder; each level halves time and mel
    model.kernel_size = 2  # conv2d: 2 = dense on 2 x 2 patches, 3 = convolutions of stride 2
    model.encoder = "mlp"  # track: sees descriptions of segments; "conv2d": the segments
    model.num_segments = 16  # track: segments of each track in a training step
    model.contrast = 1.0  # track: weight of the contrastive term
    model.segment_frames = 128  # frames of the segments that are cut from tracks
    model.dtype = "float32"  # of conv2d's activations; "bfloat16" is faster on accelerators
    model.condition = ""  # manifest column that the model is told (which makes it supervised)
    model.deterministic = False  # a plain autoencoder: no sampling, no KL term
    model.input_noise = 0.2  # mlp, conv2d: added to the standardised input in training
    model.prior = "normal"  # or "mixture": of Gaussians, which finds clusters as it trains
    model.num_components = 10  # of the mixture
    model.beta = 1.0  # weight of the KL term
    model.beta_warmup_steps = 500  # steps over which beta rises from 0
    model.free_bits = 0.0  # nats per latent dimension that the KL term leaves free
    model.learned_scale = True  # of the Gaussian likelihood; else a standard deviation of 1

    config.train = train = ConfigDict()
    train.num_steps = placeholder(int)  # when not set: num_epochs, but at least min_steps
    train.num_epochs = 20  # passes over the training tracks
    train.min_steps = 3000
    train.batch_size = 64  # tracks, over all devices
    train.learning_rate = 1e-3  # peak of a linear warm-up and cosine decay
    train.warmup_steps = 100
    train.weight_decay = 1e-4
    train.clip_norm = 1.0  # of the gradient, over all parameters
    train.skip_nonfinite = False  # skip batches whose loss is NaN or infinite, instead of stopping
    train.validation_fraction = 0.1  # of the tracks
    train.log_every = 50  # steps; also the steps per dispatch
    train.eval_every = 250  # steps
    train.checkpoint_every = 250  # steps; the best of these on validation is embedded
    train.resident_gib = 2.0  # features up to this size stay on the device; larger ones stream
    train.patience = 0  # evaluations without improvement before stopping; 0 = never stop early

    config.embed = embed = ConfigDict()
    embed.batch_size = 4096  # tracks; fewer where they are large
    embed.format = "npz"  # one file in the end, or "sharded" for what does not fit in memory
    embed.shard_size = 16384  # tracks; the shares that processes take, and that a killed run keeps

    config.cluster = cluster = ConfigDict()
    cluster.method = "kmeans"
    cluster.num_clusters = FieldReference(10, field_type=object)  # or "auto": chosen by the data
    cluster.num_seeds = 5  # repeats, for the mean and standard deviation of every metric
    cluster.n_init = 10  # restarts of k-means and of the Gaussian mixture
    cluster.eps = placeholder(float)  # DBSCAN; from the knee of the k-distances when not set
    cluster.min_samples = 10  # DBSCAN and HDBSCAN
    cluster.linkage = "ward"  # agglomerative: ward, average, complete or single
    cluster.label = "label"  # manifest column that the clusters are scored against
    cluster.silhouette_sample = 10000  # tracks, at most, in O(n^2) metrics

    config.visualize = visualize = ConfigDict()
    visualize.method = "umap"
    visualize.color_by = ("label", "language", "genre")  # manifest columns, where present
    visualize.n_neighbors = 15  # UMAP
    visualize.min_dist = 0.1  # UMAP
    visualize.perplexity = 30.0  # t-SNE
    return config


def validate(config: ConfigDict) -> None:
    """Raise a `UserError` that names the first key that is unknown, missing or out of range."""
    defaults = get_config()
    _check_types(config, defaults, "config")
    for key, (check, requirement) in _RULES.items():
        value = _lookup(config, key)
        is_unset = value is None and _lookup(defaults, key) is None
        if not is_unset and not check(value):
            raise UserError(f"config.{key} is {value!r}, but must be {requirement}.")
    feature = config.feature
    nyquist = feature.sample_rate / 2
    fmax = nyquist if feature.fmax is None else feature.fmax
    if not feature.fmin < fmax <= nyquist:
        raise UserError(
            f"config.feature.fmin ({feature.fmin} Hz) must lie below config.feature.fmax "
            f"({fmax} Hz), and that at or below half the sample rate ({nyquist} Hz)."
        )
    if feature.min_duration > feature.duration:
        raise UserError(
            f"config.feature.min_duration ({feature.min_duration} s) must not exceed "
            f"config.feature.duration ({feature.duration} s), or every track would be too short."
        )
    if feature.win_length is not None and feature.win_length > feature.n_fft:
        raise UserError(
            f"config.feature.win_length ({feature.win_length}) must not exceed "
            f"config.feature.n_fft ({feature.n_fft})."
        )
    if feature.n_mfcc > feature.n_mels:
        raise UserError(
            f"config.feature.n_mfcc ({feature.n_mfcc}) must not exceed "
            f"config.feature.n_mels ({feature.n_mels})."
        )
    if config.embed.format == "sharded" and config.cluster.method != "kmeans":
        raise UserError(
            f"config.cluster.method={config.cluster.method} needs all latents in memory: use "
            "kmeans, or config.embed.format=npz."
        )
    model = config.model
    if model.prior == "mixture" and model.deterministic:
        raise UserError(
            "config.model.prior=mixture is not for config.model.deterministic=True: a plain "
            "autoencoder has no prior."
        )
    if model.name in ("multimodal", "track"):
        for key, is_used in (
            ("model.condition", bool(model.condition)),
            ("model.deterministic", model.deterministic),
            ("baselines=ae", "ae" in config.baselines),
        ):
            if is_used:
                raise UserError(
                    f"config.{key} is not for config.model.name={model.name}: use mlp or conv2d."
                )


def all_keys() -> list[str]:
    """Return all keys, such as "model.latent_dim"."""
    return list(_RULES)


def feature_settings(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `config.feature` that decide what is stored."""
    return _without(feature, "num_workers", "runner", "lyrics_weight")


def training_settings(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `config.feature` that decide what a model learns."""
    return _without(feature, "num_workers", "runner", "shard_size")


def _without(feature: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in feature.items() if key not in names}


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Return the config as plain dicts and lists, equal to what JSON would give back."""
    return json.loads(json.dumps(config.to_dict()))


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
    """Rebuild a config from `to_dict`; keys added since then keep their defaults."""
    config = get_config()
    _update(config, values, "config")
    return config


def _update(config: ConfigDict, values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if key not in config:
            raise UserError(
                f"{where}.{key} is not a key of this version of vae_jax: "
                "use the version that wrote it, or train again."
            )
        if isinstance(value, Mapping):
            _update(config[key], value, f"{where}.{key}")
        else:
            config[key] = tuple(value) if isinstance(value, list) else value


def _check_types(config: ConfigDict, defaults: ConfigDict, where: str) -> None:
    for key in config:
        if key not in defaults:
            raise UserError(
                f"{where}.{key} is not a config key: {where} has {', '.join(defaults)}."
            )
    for key, default in defaults.items():
        if key not in config:
            raise UserError(f"{where}.{key} is missing: start from vae_jax.config.get_config().")
        value, expected = config[key], defaults.get_type(key)
        if isinstance(default, ConfigDict) and isinstance(value, ConfigDict):
            _check_types(value, default, f"{where}.{key}")
        elif not _is_like(value, default, expected):
            raise UserError(f"{where}.{key} is {value!r}, but must be a {expected.__name__}.")


def _is_like(value: Any, default: Any, expected: Any) -> bool:
    if expected is object:
        return True  # of several types, which its rule tells apart
    if value is None:
        return default is None
    if expected is float:
        return type(value) in (int, float)
    if expected is tuple:
        return isinstance(value, tuple) and all(type(v) is type(default[0]) for v in value)
    return type(value) is expected and not (expected is str and "\0" in value)


def _lookup(config: ConfigDict, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def _one_of(names: tuple[str, ...]) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value in names), "one of " + ", ".join(names)


def _all_of(names: tuple[str, ...]) -> tuple[Callable[[Any], bool], str]:
    return (lambda values: set(values) <= set(names)), "a subset of " + ", ".join(names)


def _at_least(low: int, at_most: int = 2**31 - 1) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: low <= value <= at_most), f"{low} or more, at most {at_most}"


def _sizes(at_least: int) -> tuple[Callable[[Any], bool], str]:
    return (
        lambda values: at_least <= len(values) <= 64 and all(0 < v <= MAX_SIZE for v in values),
        f"{at_least} to 64 positive whole numbers up to {MAX_SIZE}",
    )


MAX_SIZE = 2**16  # of one axis of a model; what is beyond is a slip, and would fill any memory
_POSITIVE = (lambda value: 0 < value <= 1e9), "a number above 0, at most 1e9"
_COUNT = _at_least(1)
_SIZE = _at_least(1, MAX_SIZE)
_NOT_NEGATIVE = _at_least(0)

_FOLDER = (lambda value: "://" not in value), "a folder, not a URL: mount the bucket as one"

_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (
        (lambda value: bool(re.fullmatch(r"\w[\w.-]{0,99}", value))),
        "up to 100 letters, digits, _, - and ., since it names folders",
    ),
    "seed": ((lambda value: 0 <= value < 2**31), "from 0 to 2**31 - 1"),
    "num_seeds": _at_least(1, 1024),
    "data_dir": (
        lambda value: "://" not in value or isinstance(urls.location(value), str),
        "a folder, or a URL of an object store (gs://, s3://, az://)",
    ),
    "checkpoint_dir": _FOLDER,
    "baselines": _all_of(BASELINES),
    "feature.name": _one_of(FEATURES),
    "feature.sample_rate": ((lambda value: 1000 <= value <= 384000), "from 1000 to 384000 Hz"),
    "feature.duration": ((lambda value: 0 < value <= 36000), "above 0 and at most 36000 s"),
    "feature.excerpt": _one_of(("start", "center")),
    "feature.min_duration": _NOT_NEGATIVE,
    "feature.n_fft": ((lambda value: 16 <= value <= 65536), "from 16 to 65536 samples"),
    "feature.win_length": _COUNT,
    "feature.hop_length": _at_least(1, 65536),
    "feature.n_mels": ((lambda value: 1 <= value <= 1024), "from 1 to 1024"),
    "feature.fmin": ((lambda value: value >= 0), "0 or more"),
    "feature.fmax": _POSITIVE,
    "feature.n_mfcc": _at_least(1, 1024),
    "feature.audio_feature": _one_of(AUDIO_FEATURES),
    "feature.lyrics_embed_dim": _NOT_NEGATIVE,
    "feature.lyrics_max_features": _COUNT,
    "feature.lyrics_weight": _NOT_NEGATIVE,
    "feature.shard_size": _COUNT,
    "feature.num_workers": _at_least(0, 1024),
    "feature.runner": _one_of(("local", "beam")),
    "model.name": _one_of(MODELS),
    "model.latent_dim": _SIZE,
    "model.hidden_dims": _sizes(0),
    "model.channels": _sizes(1),
    "model.kernel_size": ((lambda value: value in (2, 3)), "2 or 3"),
    "model.segment_frames": ((lambda value: 1 <= value <= 65536), "from 1 to 65536"),
    "model.dtype": _one_of(("float32", "bfloat16")),
    "model.input_noise": _NOT_NEGATIVE,
    "model.prior": _one_of(PRIORS),
    "model.num_components": _at_least(2, 1024),
    "model.beta": _NOT_NEGATIVE,
    "model.beta_warmup_steps": _NOT_NEGATIVE,
    "model.free_bits": _NOT_NEGATIVE,
    "train.num_steps": _COUNT,
    "train.num_epochs": _COUNT,
    "train.min_steps": _COUNT,
    "train.batch_size": _at_least(1, 2**20),
    "train.learning_rate": _POSITIVE,
    "train.warmup_steps": _NOT_NEGATIVE,
    "train.weight_decay": _NOT_NEGATIVE,
    "train.clip_norm": _POSITIVE,
    "train.validation_fraction": ((lambda value: 0 <= value <= 0.5), "from 0 to 0.5"),
    "train.log_every": _at_least(1, 10000),
    "train.eval_every": _COUNT,
    "train.checkpoint_every": _COUNT,
    "train.resident_gib": _NOT_NEGATIVE,
    "train.patience": _NOT_NEGATIVE,
    "embed.batch_size": _at_least(1, 2**20),
    "embed.format": _one_of(("npz", "sharded")),
    "embed.shard_size": _COUNT,
    "cluster.method": _one_of(CLUSTERERS),
    "cluster.num_clusters": (
        (lambda value: value == AUTO or (type(value) is int and 2 <= value < 2**31)),
        f'a whole number of 2 or more, or "{AUTO}"',
    ),
    "cluster.num_seeds": _COUNT,
    "cluster.n_init": _COUNT,
    "cluster.eps": _POSITIVE,
    "cluster.min_samples": _COUNT,
    "cluster.linkage": _one_of(("ward", "average", "complete", "single")),
    "cluster.silhouette_sample": _at_least(2),
    "visualize.method": _one_of(PROJECTIONS),
    "visualize.n_neighbors": _at_least(2),
    "visualize.min_dist": _NOT_NEGATIVE,
    "visualize.perplexity": _POSITIVE,
}
