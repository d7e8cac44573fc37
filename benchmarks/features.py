"""Features: audio files to records, and spectra from waveforms, against librosa.

What is raced against librosa is extracted without descriptors, which librosa does not compute here.
"""

import collections
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Line, Task, compared, race
from vae_jax.config import get_config
from vae_jax.parallel.cores import num_cores

RATE = 44100  # Hz, of the files
TARGET_RATE = 22050  # Hz, of the features


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    files: int = 12
    seconds: float = 30.0
    tracks_per_core: int = 64  # one shard of the default size
    long_seconds: float = 600.0
    clips_per_core: int = 32
    repeats: int = 5


TINY = Sizes(files=1, seconds=1.0, tracks_per_core=2, long_seconds=2.0, clips_per_core=2, repeats=1)


def measure(sizes: Sizes) -> Iterator[Line]:
    """Yield the lines of this topic."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix, feature in (("mp3", "mfcc"), ("mp3", "logmelspec"), ("flac", "mfcc")):
            paths = write_audio(Path(folder) / suffix, suffix, sizes.files, sizes.seconds)
            yield _extraction(Path(folder), paths, feature, sizes)
            yield _with_descriptors(Path(folder), paths, feature, sizes)
        yield _long_tracks(Path(folder), sizes)
    yield from _spectra(sizes)


def write_audio(folder: Path, suffix: str, count: int, seconds: float) -> list[Path]:
    """Write stereo music in a format, unless it is there."""
    import soundfile

    from vae_jax import demo

    paths = [folder / f"{i}.{suffix}" for i in range(count)]
    if not folder.exists():
        demo.synthesise(folder, num_tracks=count, duration=seconds, sample_rate=RATE)
        for source, path in zip(sorted((folder / "audio").iterdir()), paths, strict=True):
            mono, _ = soundfile.read(source)
            soundfile.write(path, np.stack([mono, np.roll(mono, 100)], axis=1), RATE)
    return paths


def _extraction(folder: Path, paths: Sequence[Path], feature: str, sizes: Sizes) -> Line:
    """Race from files to records: decoded alone, described by us, described by librosa."""
    _check_samples(paths, sizes.seconds)
    cores = num_cores()
    count = sizes.tracks_per_core * cores
    repeated = [paths[i % len(paths)] for i in range(count)]
    chunks = [repeated[core::cores] for core in range(cores)]
    described = (folder / f"records-{feature}", chunks, feature, sizes.seconds)
    work = [(chunk, feature) for chunk in chunks]
    tasks = {
        "vae_jax": Task(extraction, described, threads=1),
        "librosa": Task(pooled, (_describe_with_librosa, work), threads=1),
        "decoding alone": Task(pooled, (_decode, chunks), threads=1),
    }
    timings = race(tasks, sizes.repeats)
    return compared(
        f"{sizes.seconds:g}-s {paths[0].suffix[1:]} to records of {feature}, {cores} cores, warm",
        *(count, "tracks/s", timings, "vae_jax"),
        peer="librosa",
        bound="decoding alone",
        goals={"ratio": 1.6, "fraction": 0.65} if feature == "mfcc" else {"fraction": 0.65},
    )


def _with_descriptors(folder: Path, paths: Sequence[Path], feature: str, sizes: Sizes) -> Line:
    """Race extraction with descriptors against the same without."""
    cores = num_cores()
    count = sizes.tracks_per_core * cores
    chunks = [[paths[i % len(paths)] for i in range(core, count, cores)] for core in range(cores)]
    tasks = {
        name: Task(
            extraction,
            (folder / f"records-{feature}-{flag}", chunks, feature, sizes.seconds, flag),
            threads=1,
        )
        for name, flag in (("with descriptors", True), ("without", False))
    }
    return compared(
        f"{feature} of {sizes.seconds:g}-s {paths[0].suffix[1:]} with descriptors, {cores} cores",
        *(count, "tracks/s", race(tasks, sizes.repeats), "with descriptors"),
        peer="without",
        goals={"ratio": round(1 / 1.15, 2)},
    )


def _long_tracks(folder: Path, sizes: Sizes) -> Line:
    """Measure the memory for tracks from which only a window is read."""
    (path,) = write_audio(folder / "long", "flac", 1, sizes.long_seconds)
    chunks = [[path]] * num_cores()
    arguments = (folder / "records-long", chunks, "mfcc", sizes.seconds)
    timings = race({"vae_jax": Task(extraction, arguments, threads=1)}, sizes.repeats)
    what = f"the same of {sizes.seconds:g} s in the midst of {sizes.long_seconds:g}-s flac"
    return compared(what, len(chunks), "tracks/s", timings, "vae_jax")


def extraction(
    directory: Path,
    chunks: Sequence[Sequence[Path]],
    feature: str,
    seconds: float,
    descriptors: bool = False,
) -> Callable[[], Any]:
    """Return our extraction of shards, in a pool of as many processes as cores."""
    from vae_jax.features import pool, shards
    from vae_jax.manifest import Manifest

    config = get_config().feature
    config.update(name=feature, duration=seconds, excerpt="center", descriptors=descriptors)
    jobs = []
    for shard, paths in enumerate(chunks):
        ids, cells = [f"{shard}-{i}" for i in range(len(paths))], [str(path) for path in paths]
        tracks = Manifest(directory / "metadata.csv", ids, {"audio_path": cells})
        jobs.append(shards.ShardJob(directory, shard, tracks, config.to_dict(), None, 1))
    run = pooled(shards.write_shard, jobs)

    def as_workers() -> None:
        with pool.worker_environment():  # the first run starts the processes
            run()

    return as_workers


def pooled(function: Callable[[Any], Any], items: Sequence[Any]) -> Callable[[], Any]:
    """Return the mapping of a function over items in as many processes as cores."""
    pool = ProcessPoolExecutor(num_cores(), get_context("spawn"))
    return lambda: collections.deque(pool.map(function, items), maxlen=0)


def _describe_with_librosa(work: tuple[Sequence[Path], str]) -> None:
    import librosa

    paths, feature = work
    for path in paths:
        waveform, _ = librosa.load(path, sr=TARGET_RATE, duration=30.0)
        if feature == "mfcc":
            frames = librosa.feature.mfcc(y=waveform, sr=TARGET_RATE, n_mfcc=20)
            np.concatenate([frames.mean(axis=1), frames.std(axis=1)])
        else:
            librosa.power_to_db(librosa.feature.melspectrogram(y=waveform, sr=TARGET_RATE))


def _decode(paths: Sequence[Path]) -> None:
    import soundfile

    for path in paths:
        with soundfile.SoundFile(path) as file:
            file.read(30 * file.samplerate, dtype="float32")


def _check_samples(paths: Sequence[Path], seconds: float) -> None:
    """Stop if our samples are not librosa's."""
    import librosa

    from vae_jax.features import audio

    window = {"sample_rate": TARGET_RATE, "duration": seconds, "min_duration": 0.1}
    for path in paths:
        expected, _ = librosa.load(path, sr=TARGET_RATE, duration=seconds)
        if not np.array_equal(audio.load(path, excerpt="start", **window).waveform, expected):
            raise AssertionError(f"{path}: our samples are not librosa's")


def _spectra(sizes: Sizes) -> Iterator[Line]:
    """Race spectra of waveforms in memory."""
    for cores in sorted({1, num_cores()}):
        for kind in ("log_mel", "mfcc"):
            arguments = (kind, sizes.seconds, sizes.clips_per_core)
            tasks = {
                "vae_jax": Task(spectra, arguments, cores=cores, threads=1),
                "librosa": Task(librosa_spectra, arguments, cores=cores, threads=1),
            }
            timings = race(tasks, sizes.repeats)
            yield compared(
                f"{kind} of {sizes.seconds:g}-s waveforms, cores: {cores}",
                *(cores * sizes.clips_per_core, "clips/s", timings, "vae_jax"),
                peer="librosa",
                goals={"ratio": 2.5 if cores == 1 else 3.0},
            )
    arguments = (sizes.seconds, sizes.clips_per_core)
    tasks = {
        "in a batch": Task(batched_spectra, arguments, cores=1, threads=1),
        "one by one": Task(spectra, ("log_mel", *arguments), cores=1, threads=1),
    }
    yield compared(
        f"log_mel in a batch of {sizes.clips_per_core}, cores: 1",
        *(sizes.clips_per_core, "clips/s", race(tasks, sizes.repeats), "in a batch"),
        peer="one by one",
        goals={"ratio": round(1 / 1.3, 2)},
    )


@functools.cache
def _waveform(seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * TARGET_RATE)) / TARGET_RATE
    noise = np.random.default_rng(0).normal(0, 0.1, len(time))
    return (0.3 * np.sin(2 * np.pi * 440 * time * (1 + 0.1 * time)) + noise).astype(np.float32)


def spectra(kind: str, seconds: float, clips_per_core: int) -> Callable[[], Any]:
    """Return our spectra of clips, one clip per call, in a pool of as many processes as cores."""
    return pooled(_our_spectra, [(kind, seconds, clips_per_core)] * num_cores())


def _our_spectra(work: tuple[str, float, int]) -> None:
    from vae_jax.features import spectral

    kind, seconds, clips = work
    waveform, spec = _waveform(seconds), spectral.SpectralSpec.of(get_config().feature)
    for _ in range(clips):
        getattr(spectral, kind)(waveform, len(waveform), spec).block_until_ready()


def batched_spectra(seconds: float, clips: int) -> Callable[[], Any]:
    """Return our log-mel spectra of a batch of clips in one call."""
    from vae_jax.features import spectral

    spec = spectral.SpectralSpec.of(get_config().feature)
    waveforms = np.tile(_waveform(seconds), (clips, 1))
    lengths = np.full(clips, waveforms.shape[1])

    def run() -> None:
        spectral.log_mel(waveforms, lengths, spec).block_until_ready()

    return run


def librosa_spectra(kind: str, seconds: float, clips_per_core: int) -> Callable[[], Any]:
    """Return librosa's spectra of clips in a pool of as many processes as cores."""
    return pooled(_librosa_spectra, [(kind, seconds, clips_per_core)] * num_cores())


def _librosa_spectra(work: tuple[str, float, int]) -> None:
    import librosa

    kind, seconds, clips = work
    waveform = _waveform(seconds)
    for _ in range(clips):
        if kind == "mfcc":
            librosa.feature.mfcc(y=waveform, sr=TARGET_RATE, n_mfcc=20)
        else:
            librosa.power_to_db(librosa.feature.melspectrogram(y=waveform, sr=TARGET_RATE))
