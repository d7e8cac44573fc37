"""Records: writing, shuffled reads of segments, and opening, against tf.data on the same bytes."""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import synthetic
from benchmarks.measure import Line, Task, compared, has, race
from vae_jax.config import get_config
from vae_jax.records import layout, reader, slices, tfrecord
from vae_jax.records.statistics import ArraySpec
from vae_jax.storage import files

MEGABYTE = 1e6
SEGMENT_FRAMES = 64
BATCH = 32
DISPATCH = 512  # tracks that training reads at a time
BANDS = 128


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    tracks: int = 1024
    frames: int = 1292  # 30 s
    vectors: int = 50_000
    opened: int = 1_000_000
    repeats: int = 7


TINY = Sizes(tracks=DISPATCH, frames=SEGMENT_FRAMES, vectors=100, opened=1000, repeats=1)


def measure(sizes: Sizes) -> Iterator[Line]:
    """Yield the lines of this topic."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames, vectors = folder / "frames", folder / "vectors"
        synthetic.write_records(frames, feature("logmelspec"), sizes.tracks, sizes.frames)
        synthetic.write_records(vectors, feature("mfcc"), sizes.vectors)
        yield _writing(folder, sizes)
        yield from _segments(frames, sizes)
        yield _vectors(vectors, sizes)
        yield _opening(vectors, sizes)


def feature(name: str) -> dict[str, Any]:
    """Return the default `config.feature` of a name."""
    return get_config().feature.to_dict() | {"name": name}


def _writing(folder: Path, sizes: Sizes) -> Line:
    count = min(sizes.tracks, 200)
    tasks = {"vae_jax": Task(writing, (folder / "written", count, sizes.frames))}
    if has("tensorflow"):
        tasks["tensorflow"] = Task(tf_writing, (folder / "written-tf", count, sizes.frames))
    tasks["unframed bytes"] = Task(plain_writing, (folder / "plain", count, sizes.frames))
    amount = count * sizes.frames * BANDS * 2 / MEGABYTE
    return compared(
        f"write {sizes.frames} x {BANDS} float16 records",
        *(amount, "MB/s", race(tasks, sizes.repeats), "vae_jax"),
        peer="tensorflow",
        bound="unframed bytes",
    )


def _segments(directory: Path, sizes: Sizes) -> Iterator[Line]:
    tasks = {"vae_jax": Task(segments, (directory,)), "copying": Task(copies, (directory,))}
    tasks["whole tracks"] = Task(whole_tracks, (directory,))
    if has("tensorflow"):
        tasks["tf.data"] = Task(tf_segments, (directory,))
    timings = race(tasks, sizes.repeats)
    rates = (sizes.tracks // DISPATCH * DISPATCH, "examples/s", timings, "vae_jax")
    what = f"shuffled reads of {SEGMENT_FRAMES}-frame segments, one per track"
    yield compared(what, *rates, peer="tf.data", bound="copying", goals={"fraction": 0.7})
    yield compared(
        f"{what}, against reading whole tracks", *rates, peer="whole tracks", goals={"ratio": 5.0}
    )


def _vectors(directory: Path, sizes: Sizes) -> Line:
    tasks = {"vae_jax": Task(vectors, (directory,))}
    if has("tensorflow"):
        tasks["tf.data"] = Task(tf_vectors, (directory,))
    return compared(
        "reads of all vectors in order, as for training on the device",
        *(sizes.vectors, "examples/s", race(tasks, sizes.repeats), "vae_jax"),
        peer="tf.data",
    )


def _opening(directory: Path, sizes: Sizes) -> Line:
    """Open the index of many records, made from that of few."""
    count = sizes.opened
    synthetic.write_index(directory, np.arange(count) // 64, np.arange(count) % 64 * 500, 0)
    layout.write_summary(directory, files.read_sealed_json(directory / layout.STATISTICS))
    timing = race({"vae_jax": Task(opening, (directory,))}, sizes.repeats)["vae_jax"]
    what, goals = f"open {count:,} records", {"ours": 2.0}
    return Line(what, timing.median, "s", memory=timing.memory, goals=goals)


def _examples(frames: int, count: int) -> list[dict[str, Any]]:
    values = np.random.default_rng(0).normal(0, 1, (frames, BANDS)).astype(np.float16)
    return [{"id": f"{i}", "duration": 30.0, "features": values} for i in range(count)]


def writing(path: Path, count: int, frames: int) -> Callable[[], Any]:
    """Return our writing of records."""
    serialize = layout.serializer({"features": ArraySpec((None, BANDS), "float16")})
    examples = _examples(frames, count)

    def run() -> None:
        with open(path, "wb") as file:
            for example in examples:
                tfrecord.write_record(file, serialize(example))

    return run


def tf_writing(path: Path, count: int, frames: int) -> Callable[[], Any]:
    """Return TensorFlow's writing of the same records."""
    tf = _tensorflow()
    examples = _examples(frames, count)

    def feature_of(value: Any) -> Any:
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        content = value.encode() if isinstance(value, str) else value.tobytes()
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))

    def run() -> None:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in examples:
                named = {name: feature_of(value) for name, value in example.items()}
                features = tf.train.Features(feature=named)
                writer.write(tf.train.Example(features=features).SerializeToString())

    return run


def plain_writing(path: Path, count: int, frames: int) -> Callable[[], Any]:
    """Return the writing of the arrays' bytes alone."""
    contents = [example["features"].tobytes() for example in _examples(frames, count)]

    def run() -> None:
        with open(path, "wb") as file:
            for content in contents:
                file.write(content)

    return run


def segments(directory: Path) -> Callable[[], Any]:
    """Return our batches of random segments of shuffled tracks, one epoch after the first."""
    stored, rng = reader.Records(directory), np.random.default_rng(0)
    cut = slices.Slices(stored)

    def run() -> None:
        for batch, starts in _random_segments(stored, rng):
            cut.load(batch, starts, SEGMENT_FRAMES)

    run()
    return run


def whole_tracks(directory: Path) -> Callable[[], Any]:
    """Return batches of random segments cut from tracks that are read whole, one epoch."""
    stored, rng = reader.Records(directory), np.random.default_rng(0)

    def run() -> None:
        for batch, starts in _random_segments(stored, rng):
            frames = itertools.chain.from_iterable(
                stored.load(part)["features"] for part in stored.parts(batch)
            )
            cut = zip(frames, starts, strict=True)
            np.stack([track[start : start + SEGMENT_FRAMES] for track, start in cut])

    return run


def copies(directory: Path) -> Callable[[], Any]:
    """Return copies of as many bytes from the page cache, in pieces of a segment, one epoch."""
    stored, rng = reader.Records(directory), np.random.default_rng(0)
    paths = sorted(directory.glob(f"{layout.DATASET}-*.tfrecord-*"))
    content = np.concatenate([np.memmap(path, mode="r") for path in paths])
    size = SEGMENT_FRAMES * BANDS * 2

    def run() -> None:
        for batch, _ in _random_segments(stored, rng):
            into = np.empty((len(batch), size), np.uint8)
            for row, begin in zip(
                into, rng.integers(0, len(content) - size, len(batch)), strict=True
            ):
                row[:] = content[begin : begin + size]

    return run


def _random_segments(
    stored: reader.Records, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield shuffled tracks, a dispatch at a time, and where a segment of each begins."""
    order = rng.permutation(len(stored))[: len(stored) // DISPATCH * DISPATCH]
    for batch in order.reshape(-1, DISPATCH):
        yield batch, rng.integers(0, stored.num_frames[batch] - SEGMENT_FRAMES + 1)


def tf_segments(directory: Path) -> Callable[[], Any]:
    """Return tf.data's batches of random segments of shuffled tracks, one epoch."""
    tf = _tensorflow()
    spec = {"features": tf.io.FixedLenFeature((), tf.string)}

    def cut(serialised: Any) -> Any:
        frames = tf.io.decode_raw(tf.io.parse_example(serialised, spec)["features"], tf.float16)
        frames = tf.reshape(frames, (BATCH, -1, BANDS))
        last = tf.shape(frames)[1] - SEGMENT_FRAMES
        starts = tf.random.uniform((BATCH,), 0, last + 1, tf.int32)
        return tf.gather(frames, starts[:, None] + tf.range(SEGMENT_FRAMES), axis=1, batch_dims=1)

    # The buffer holds a quarter of the tracks: 80 MB. Ours shuffles all of them.
    return _epoch(_shuffled(directory, 256).batch(BATCH, drop_remainder=True).map(cut, -1))


def vectors(directory: Path) -> Callable[[], Any]:
    """Return our loading of all tracks' vectors, as training does it."""
    from vae_jax.training.input_pipeline import Source

    source = Source(reader.Records(directory))
    positions = np.arange(len(source))
    return lambda: source.load(positions) and None


def tf_vectors(directory: Path) -> Callable[[], Any]:
    """Return tf.data's batches of all vectors."""
    tf = _tensorflow()
    spec = {"features": tf.io.FixedLenFeature((), tf.string)}

    def parse(serialised: Any) -> Any:
        return tf.io.decode_raw(tf.io.parse_example(serialised, spec)["features"], tf.float32)

    return _epoch(_read(directory).batch(1024).map(parse, -1))


def _tensorflow() -> Any:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow

    return tensorflow


def _read(directory: Path) -> Any:
    tf = _tensorflow()
    paths = sorted(str(path) for path in directory.glob(f"{layout.DATASET}-*.tfrecord-*"))
    return tf.data.TFRecordDataset(paths, num_parallel_reads=tf.data.AUTOTUNE)


def _shuffled(directory: Path, buffer: int) -> Any:
    return _read(directory).shuffle(buffer, seed=0)


def _epoch(dataset: Any) -> Callable[[], Any]:
    dataset = dataset.prefetch(2)

    def run() -> None:
        for batch in dataset:
            batch.numpy()

    return run


def opening(directory: Path) -> Callable[[], Any]:
    """Return our opening of a records directory."""
    return lambda: reader.Records(directory) and None
