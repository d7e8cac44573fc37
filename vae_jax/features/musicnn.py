"""MusiCNN, a network that others have trained to tag music, as a feature (Pons and Serra 2019).

The network sees patches of 3 s of a log-mel spectrogram (arXiv:1909.06654). Its last layer but one
describes each, [P, 200]. The weights are those of the package `musicnn` 0.1.0, which
`vae-jax download musicnn` fetches; its two models were trained on MagnaTagATune and on the Million
Song Dataset. Parameters have the names of the original's variables.

Letters: B patches, T frames, F mel bands, C channels, W windows of a track, P patches of a track.
"""

import contextlib
import functools
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax import lax

from vae_jax.errors import UserError
from vae_jax.features import spectral
from vae_jax.storage import files, urls

SPEC = spectral.SpectralSpec(
    sample_rate=16000,
    n_fft=512,
    win_length=512,
    hop_length=256,
    n_mels=96,
    fmin=0.0,
    fmax=8000.0,
    n_mfcc=1,
)
PATCH_FRAMES = 187  # 3 s, as in training
SIZE = 200  # of the description of a patch
PATCHES_PER_BATCH = 64  # on an accelerator, half a gigabyte
EPSILON = 1e-3  # of the batch normalisation, TensorFlow's default
DIGESTS = {  # of the weights by model (see `digest`)
    "MSD_musicnn": "f4a78f0eafe7bb724260bf77cd566879bbff3b048785215b40726e78ce4a7c07",
    "MTT_musicnn": "840db2e117e2abc126a6b90c9be9efc65f6dc130f9fcac07339f0a4eef5b8995",
}

Weights = dict[str, np.ndarray]


class Norm(nn.Module):
    """Batch normalisation with the statistics of the training."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise the channels of [..., C]."""
        gamma, beta, mean, variance = (
            self.param(name, nn.initializers.ones, x.shape[-1:])
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) * (gamma * lax.rsqrt(variance + EPSILON)) + beta


class MusiCnn(nn.Module):
    """The network without its last layer, which names tags."""

    @nn.compact
    def __call__(self, patches: jax.Array) -> jax.Array:
        """Describe log-mel patches, [B, T, F] -> [B, 200]."""
        conv_names, norm_names = _names("conv2d"), _names("batch_normalization")

        def norm(x: jax.Array) -> jax.Array:
            return Norm(name=next(norm_names))(x)

        def conv(x: jax.Array, channels: int, *size: int) -> jax.Array:
            """Convolve over time, padded, and over frequency if there is a second size."""
            padding = [((size[0] - 1) // 2, size[0] // 2), (0, 0)][: len(size)]
            name, exact = next(conv_names), "highest"  # or GPUs would round to 10 bits
            x = nn.Conv(channels, size, padding=padding, precision=exact, name=name)(x)
            return norm(nn.relu(x))

        x = norm(patches[..., None])
        timbre = [conv(x, 204, 7, bands).max(axis=2) for bands in (38, 67)]
        rhythm = [conv(x, 51, length, 1).max(axis=2) for length in (128, 64, 32)]
        front = jnp.concatenate([*timbre, *rhythm], axis=-1)
        first = conv(front, 64, 7)
        second = first + conv(first, 64, 7)
        third = second + conv(second, 64, 7)
        x = jnp.concatenate([front, first, second, third], axis=-1)
        pooled = jnp.stack([x.max(axis=1), x.mean(axis=1)], axis=-1).reshape(len(x), -1)
        return norm(nn.relu(nn.Dense(SIZE, precision="highest", name="dense")(norm(pooled))))


def _names(kind: str) -> Iterator[str]:
    """Yield what TensorFlow calls layers of one kind: conv2d, conv2d_1, conv2d_2, ..."""
    yield kind
    yield from (f"{kind}_{number}" for number in itertools.count(1))


@functools.cache
def shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights by name, such as "conv2d/kernel"."""
    patch = jnp.zeros((1, PATCH_FRAMES, SPEC.n_mels))
    variables = jax.eval_shape(MusiCnn().init, jax.random.key(0), patch)
    flat = traverse_util.flatten_dict(variables["params"], sep="/")
    return {name: leaf.shape for name, leaf in flat.items()}


def digest(weights: Mapping[str, np.ndarray]) -> str:
    """Hash weights: their names, shapes and values, however a file holds them."""
    hasher = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name], "<f4")
        hasher.update(f"{name} {array.shape}\n".encode())
        hasher.update(array.tobytes())
    return hasher.hexdigest()


def load(feature: Mapping[str, Any]) -> Weights:
    """Read the weights of the model that `config.feature` names.

    Raises
    ------
    UserError
        If they are not there, or are not the published ones.
    """
    model, folder = feature["musicnn"], feature["musicnn_dir"]
    place, weights = urls.join(urls.location(folder), f"{model}.npz"), {}
    command = f"vae-jax download musicnn --model={model} --data_dir={folder}"
    try:
        with urls.local(place) as path, contextlib.suppress(UserError):
            path.stat()
            weights = files.read_npz(path, *shapes())
    except OSError as error:
        raise UserError(
            f"config.feature.name=musicnn needs {place} ({error.strerror}): run `{command}`, which "
            "fetches the package musicnn (29 MB) from the Python Package Index."
        ) from error
    if digest(weights) != DIGESTS[model]:
        raise UserError(
            f"{place} is damaged, or not the weights of {model} (its hash is another): delete it, "
            f"then run `{command}`."
        )
    return weights


def audio_feature(feature: Mapping[str, Any], weights: Weights) -> spectral.AudioFeature:
    """Return the audio feature that describes each of a track's patches, [P, 200]."""
    variables = {"params": traverse_util.unflatten_dict(weights, sep="/")}
    max_samples, num_windows = spectral.longest(feature, SPEC.sample_rate)
    made = spectral.AudioFeature(
        shape=(None, SIZE),
        dtype="float32",
        max_samples=max_samples,
        compute=functools.partial(describe, jax.device_put(variables)),
        num_rows=num_patches,
        num_windows=num_windows,
        is_segments=True,
    )
    return spectral.listening(made, SPEC.sample_rate) if feature["descriptors"] else made


@jax.jit
def describe(variables: Any, waveform: jax.Array, num_samples: jax.Array) -> jax.Array:
    """Return descriptions of a padded waveform's patches, [N] -> [P, 200]; [W, N] -> [W, P, 200].

    Only the first `num_patches(num_samples)` of a waveform mean anything. The others are 0, and
    cost a CPU nothing, which takes patches one by one.
    """
    if waveform.ndim == 1:
        return describe(variables, waveform[None], num_samples[None])[0]
    cut, length = jax.vmap(patches)(waveform, num_samples), num_samples[:, None]
    number = jnp.arange(cut.shape[1])
    is_whole = (number + 1) * PATCH_FRAMES <= SPEC.num_frames(length)
    is_real = (is_whole | (number == 0)) & (length > 0)

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        patch, counts = pair
        network = functools.partial(MusiCnn().apply, variables)
        return lax.cond(counts, lambda: network(patch[None])[0], lambda: jnp.zeros(SIZE))

    pairs = cut.reshape(-1, *cut.shape[2:]), is_real.ravel()
    batch_size = None if jax.default_backend() == "cpu" else PATCHES_PER_BATCH
    return lax.map(one, pairs, batch_size=batch_size).reshape(*cut.shape[:2], SIZE)


def num_patches(num_samples: int) -> int:
    """Return how many whole patches there are, P; at least one, since a short sound is repeated."""
    return max(SPEC.num_frames(num_samples) // PATCH_FRAMES, 1)


def patches(waveform: jax.Array, num_samples: jax.Array) -> jax.Array:
    """Cut what the network sees side by side, [N] -> [P, T, F].

    A sound that is shorter than a patch is repeated to fill it, as in training.
    """
    count = num_patches(len(waveform))
    rows = jnp.arange(count * PATCH_FRAMES) % SPEC.num_frames(num_samples)
    return log_mel(waveform)[rows].reshape(count, PATCH_FRAMES, SPEC.n_mels)


def log_mel(waveform: jax.Array) -> jax.Array:
    """Return log10(10000 x + 1) of a waveform at 16 kHz, [N] -> [T, F].

    x is librosa's `melspectrogram(y, sr=16000, n_fft=512, hop_length=256, n_mels=96)`. The original
    rounds it to 16 bits, which changes descriptions by 4e-4 at most.
    """
    return jnp.log10(10000 * spectral.mel_power(waveform, SPEC) + 1)
