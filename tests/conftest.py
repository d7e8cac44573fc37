"""Fixtures that many tests share; the CPU backend with eight virtual devices, always."""

import os
import shutil
import struct
import tempfile

# These are set before anything imports JAX. Tests compile the same programs again and again, also
# in processes that they start, which would take most of their time without a cache. Each program
# runs but a moment here, so that optimising it would take longer than it saves.
_CACHE = tempfile.TemporaryDirectory(prefix="vae_jax-compiled-")
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _CACHE.name)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # pytest's workers fill the cores already
os.environ.setdefault("NUMBA_CACHE_DIR", f"{_CACHE.name}/numba")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

from collections.abc import Iterator, Sequence
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import soundfile

from vae_jax.features import pool, shards
from vae_jax.records import layout, reader
from vae_jax.storage import files

# How long an example takes is the machine's affair: a busy one takes a second for anything.
too_slow = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=too_slow)
hypothesis.settings.load_profile("patient")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Real music beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is absent")
    return SHARED_DATA


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Return the manifest of twelve 1-s tracks: noise, tones, and tones with overtones."""
    return write_collection(tmp_path / "music", 12)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the shards here, as another engine would, and save the start of a pool."""

    def write(jobs: Sequence[shards.ShardJob], processes: int, num_tracks: int) -> None:
        for job in jobs:
            shards.write_shard(job)

    monkeypatch.setattr(pool, "run", write)


@pytest.fixture
def unprivileged() -> Sequence[str]:
    """Return what a command begins with for permissions to count; root has none to heed."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root may read and write everything, and setpriv is not installed")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


def as_tfds_reads(directory: Path) -> list[dict]:
    """Return all that a records directory holds, texts and durations included."""
    stored = reader.Records(directory)
    shards = sorted(directory.glob("*.tfrecord-*"))
    read = layout.tfds_features(stored.arrays).deserialize_example_np
    return [read(data) for shard in shards for data in read_shard(shard)]


def read_shard(path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file, whose checksums are not looked at."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield content[12 : 12 + length]
        content = content[16 + length :]


def write_collection(folder: Path, num_tracks: int) -> Path:
    """Write tracks in three timbres and their metadata.csv; return its path."""
    rng = np.random.default_rng(0)
    time = np.arange(8000) / 8000
    (folder / "audio").mkdir(parents=True)
    rows = []
    for i in range(num_tracks):
        pitch = rng.uniform(200, 400)
        overtones = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 9))
        sounds = {
            "noise": rng.normal(0, 1, len(time)),
            "tone": np.sin(2 * np.pi * pitch * time),
            "chord": overtones,
        }
        label = list(sounds)[i % 3]
        sound = 0.1 * sounds[label] + 1e-3 * rng.normal(0, 1, len(time))
        soundfile.write(folder / "audio" / f"{i}.wav", sound, 8000)
        rows.append({"id": f"track-{i}", "audio_path": f"audio/{i}.wav", "label": label})
    files.write_csv(folder / "metadata.csv", ("id", "audio_path", "label"), rows)
    return folder / "metadata.csv"
