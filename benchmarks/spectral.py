"""Compares decoding and spectra with librosa's, on one machine in one run.

python -m benchmarks.spectral PATH/audio --cores=1

Prints ratios of medians over interleaved repeats; above 1 means faster than librosa.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

REPEATS = 15
BATCH = 32


def medians(tasks: Mapping[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Return the median time of each task in ms, after one warm-up, one after the other."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for repeat in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if repeat:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def load(path: Path) -> np.ndarray:
    from vae_jax.features import audio

    return audio.load(
        path, sample_rate=22050, duration=30.0, excerpt="start", min_duration=0.5
    ).waveform


def compare_decoding(paths: list[Path]) -> None:
    import librosa
    import soundfile

    def decode(path: Path) -> np.ndarray:
        with soundfile.SoundFile(path) as file:
            return file.read(30 * file.samplerate, dtype="float32")

    for path in paths:
        expected, _ = librosa.load(path, duration=30.0)
        assert np.array_equal(load(path), expected), path
    time_of = medians(
        {
            "decode": lambda: [decode(path) for path in paths],
            "ours": lambda: [load(path) for path in paths],
            "librosa": lambda: [librosa.load(path, duration=30.0) for path in paths],
        },
        repeats=5,
    )
    print(
        f"load {len(paths)} x 30 s of {paths[0].suffix}, identical samples: "
        f"{time_of['ours'] / len(paths):.1f} ms each, {time_of['librosa'] / time_of['ours']:.2f}x "
        f"librosa, {time_of['decode'] / time_of['ours']:.0%} of it decoding"
    )


def compare_spectra(path: Path) -> None:
    import librosa

    from vae_jax.config import get_config
    from vae_jax.features import spectral

    spec = spectral.SpectralSpec.of(get_config().feature)
    waveform = load(path)
    clips, lengths = np.tile(waveform, (BATCH, 1)), np.full(BATCH, len(waveform))

    def log_mel() -> np.ndarray:
        return librosa.power_to_db(librosa.feature.melspectrogram(y=waveform), top_db=80)

    error = np.abs(np.asarray(spectral.log_mel(waveform, len(waveform), spec)).T - log_mel()).max()
    time_of = medians(
        {
            "log_mel": lambda: spectral.log_mel(waveform, len(waveform), spec).block_until_ready(),
            "librosa log_mel": log_mel,
            "mfcc": lambda: spectral.mfcc(waveform, len(waveform), spec).block_until_ready(),
            "librosa mfcc": lambda: librosa.feature.mfcc(y=waveform),
        }
    )
    # Alone, as its 32 clips push everything else out of the cache.
    batch = medians(
        {"batch": lambda: spectral.log_mel(clips, lengths, spec).block_until_ready()}, repeats=5
    )
    for name in ("log_mel", "mfcc"):
        ratio = time_of[f"librosa {name}"] / time_of[name]
        print(f"{name}: {time_of[name]:.1f} ms per 30 s, {ratio:.2f}x librosa")
    ratio = batch["batch"] / BATCH / time_of["log_mel"]
    print(f"log_mel per clip at batch {BATCH}: {ratio:.2f}x of batch 1; error {error:.1e} dB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="audio files of one format")
    parser.add_argument("--cores", type=int, default=1)
    arguments = parser.parse_args()
    # Both libraries size their thread pools by the cores they may use, when they are imported.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(arguments.cores)
    paths = sorted(arguments.folder.iterdir())[:10]
    compare_decoding(paths)
    compare_spectra(paths[0])


if __name__ == "__main__":
    main()
