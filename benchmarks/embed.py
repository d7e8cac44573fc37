"""Embedding: a stream of records through the encoder, against the encoder alone."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import synthetic
from benchmarks.measure import Line, Task, compared, race
from vae_jax.config import get_config, to_dict
from vae_jax.records import reader


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    vectors: int = 200_000
    tracks: int = 256
    frames: int = 1292  # 30 s
    batch_size: int = 4096
    repeats: int = 5


TINY = Sizes(vectors=20, tracks=6, frames=130, batch_size=4, repeats=1)


def measure(sizes: Sizes) -> Iterator[Line]:
    """Yield the lines of this topic."""
    vectors = ("mlp", "mfcc", sizes.vectors, 0)
    spectra = ("conv2d", "logmelspec", sizes.tracks, sizes.frames)
    for model, feature, count, frames in (vectors, spectra):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            prepare(folder, model, feature, count, frames)
            tasks = {
                "vae_jax": Task(streaming, (folder, sizes.batch_size)),
                "forward pass alone": Task(forward, (folder, sizes.batch_size)),
            }
            yield compared(
                f"embed {count:,} tracks of {feature} with {model}, from the files",
                *(count, "tracks/s", race(tasks, sizes.repeats), "vae_jax"),
                bound="forward pass alone",
                goals={"fraction": 0.9},
            )


def prepare(folder: Path, model: str, feature: str, count: int, frames: int) -> None:
    """Write records, and the checkpoint of a model that has taken one step."""
    from vae_jax.training import train
    from vae_jax.training.input_pipeline import Source
    from vae_jax.training.model_spec import ModelSpec

    config = get_config()
    config.feature.name, config.model.name = feature, model
    config.train.update(num_steps=1, batch_size=4, resident_gib=0.0)
    settings = to_dict(config)
    synthetic.write_records(folder / "records", settings["feature"], count, frames)
    stored = reader.Records(folder / "records")
    model_spec = ModelSpec.of(settings, stored, [])
    train.train(Source(stored), model_spec, folder / "checkpoint")


def streaming(folder: Path, batch_size: int) -> Callable[[], Any]:
    """Return the embedding of all tracks."""
    encoder, stored = _encoder(folder), reader.Records(folder / "records")
    tracks = [np.arange(len(stored), dtype=np.int32)]

    def run() -> None:
        for _ in encoder.embed(stored, [], tracks, batch_size):
            pass

    return run


def forward(folder: Path, batch_size: int) -> Callable[[], Any]:
    """Return the encoding of as many tracks, of one batch that is on the device."""
    import jax

    from vae_jax.embedding.encoder import BATCH_BYTES
    from vae_jax.training.input_pipeline import Source

    encoder, stored = _encoder(folder), reader.Records(folder / "records")
    source = Source(stored)
    model, view = encoder.model_spec.build()
    size = min(batch_size, max(1, BATCH_BYTES // stored.bytes_per_track), len(stored))
    tracks = jax.device_put(source.load(np.arange(size)))
    variables = jax.device_put({"params": encoder.best_params})
    program = jax.jit(lambda v, t: model.apply(v, view.whole(t), method="encode"))

    def run() -> None:
        for _ in range(-(-len(stored) // size)):
            jax.block_until_ready(program(variables, tracks))

    return run


def _encoder(folder: Path) -> Any:
    from vae_jax.embedding.encoder import Encoder
    from vae_jax.training import checkpoints

    directory = folder / "checkpoint"
    return Encoder(directory, checkpoints.best_step(directory))
