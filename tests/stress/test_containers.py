"""Containers that ffmpeg writes, damaged in every way: all end well, and what is whole is right.

Each file is cut, has bytes flipped, its header changed, tags added, or another one joined to it.
None may end the process, take long, or more memory than its window; nor may its tags. If ffmpeg
itself decodes a file without a complaint, 99 of 100 such files must give the same samples: exactly
with a lossless codec, and apart from the codec's delay with others.

    python -m tests.stress.test_containers 2500
"""

import collections
import contextlib
import functools
import multiprocessing
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.audio_files import write_music
from tests.stress.jobs import LONG, SHORT
from vae_jax.download import tags
from vae_jax.features import audio

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg"),
]

CASES = 2500 if LONG else 500 if SHORT else 56
RATE, SECONDS = 32000, 3.0
MOST_SECONDS = 60  # for one file, on a busy machine
MOST_MEMORY = 600  # MiB, of a process or of one ffmpeg; half of it is taken by libraries
BLOCK = 1600  # samples that are compared together
MOST_DELAY = 5000  # samples, of a codec
FORMATS = {  # by suffix: options, and whether the codec is lossless
    "wav": ((), True),
    "24.wav": (("-c:a", "pcm_s24le"), True),
    "float.wav": (("-c:a", "pcm_f32le"), True),
    "adpcm.wav": (("-c:a", "adpcm_ms"), False),
    "aiff": ((), True),
    "au": ((), True),
    "w64": ((), True),
    "caf": ((), True),
    "flac": ((), True),
    "flac.ogg": (("-c:a", "flac"), True),
    "ogg": ((), False),
    "opus": (("-ar", "48000"), False),
    "spx": (("-c:a", "libspeex"), False),
    "mp3": ((), False),
    "vbr.mp3": (("-q:a", "4"), False),
    "bare.mp3": (("-write_xing", "0", "-id3v2_version", "0"), False),
    "bare.vbr.mp3": (("-q:a", "4", "-write_xing", "0"), False),
    "mp2": ((), False),
    "ac3": ((), False),
    "aac": ((), False),
    "m4a": ((), False),
    "fast.m4a": (("-movflags", "faststart"), False),
    "alac.m4a": (("-c:a", "alac", "-movflags", "faststart"), True),
    "mka": (("-c:a", "flac"), True),
    "webm": (("-c:a", "libopus", "-ar", "48000"), False),
    "wma": ((), False),
    "wv": ((), True),
    "tta": ((), True),
}

COUNTLESS = ("mp3", "aac", "ogg", "opus", "spx", "mp2", "ac3")  # where joined files are one

Damage = Callable[[bytes, bytes, random.Random], bytes]


def cut(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def flip(content: bytes, other: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 30)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def change_header(content: bytes, other: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        damaged[rng.randrange(min(200, len(damaged)))] = rng.choice((0, 255, rng.randrange(256)))
    return bytes(damaged)


def tag(content: bytes, other: bytes, rng: random.Random) -> bytes:
    size = rng.choice((10, 1000, 70_000))
    id3 = b"ID3\4\0\0" + bytes((size >> shift) & 127 for shift in (21, 14, 7, 0)) + bytes(size)
    behind = rng.choice((b"TAG" + bytes(125), b"APETAGEX" + rng.randbytes(size), bytes(size)))
    return rng.choice((id3 + content, content + behind, id3 + content + behind))


def join(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return content + other


DAMAGES: tuple[Damage, ...] = (cut, flip, change_header, tag, join)


@dataclass(frozen=True)
class Outcome:
    """What became of one file; `is_same` is None where ffmpeg does not decode it in full."""

    name: str
    what: str
    is_same: bool | None
    seconds: float


def write_formats(folder: Path) -> dict[str, list[bytes]]:
    """Return two files of each format that this ffmpeg writes."""
    found: dict[str, list[bytes]] = {}
    for seed in (0, 1):
        wav = write_music(folder / f"{seed}.wav", SECONDS, RATE, 2, seed)
        for suffix, (options, _) in FORMATS.items():
            path = folder / f"{seed}-written.{suffix}"
            command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", wav, *options, path]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                found.setdefault(suffix, []).append(path.read_bytes())
    return found


def as_ffmpeg_decodes(path: Path) -> tuple[np.ndarray, int] | None:
    """Return the samples, [N, channels], and the rate, if nothing is wrong in ffmpeg's eyes."""
    out = path.with_name(f"{path.name}.decoded.wav")
    command = ["ffmpeg", "-v", "warning", "-nostdin", "-y", "-i", path, "-map", "0:a:0"]
    command += ["-t", "40", "-c:a", "pcm_f32le", out]
    done = subprocess.run(command, capture_output=True, check=False, timeout=MOST_SECONDS)
    try:
        if done.returncode or b"rror" in done.stderr or b"nvalid" in done.stderr:
            return None
        return soundfile.read(out, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        return None
    finally:
        out.unlink(missing_ok=True)


def is_same(
    ours: np.ndarray, theirs: np.ndarray, is_lossless: bool, is_damaged: bool = False
) -> bool:
    """Compare two mono waveforms; where a lossy one is damaged, no two decoders hide it alike."""
    if is_lossless:
        return ours.shape == theirs.shape and bool(np.abs(ours - theirs).max() <= 2.0**-15)
    if abs(len(ours) - len(theirs)) > MOST_DELAY:
        return False
    size = 2 ** int(np.ceil(np.log2(len(ours) + len(theirs))))
    spectrum = np.fft.rfft(ours, size) * np.conj(np.fft.rfft(theirs, size))
    lags = np.fft.irfft(spectrum, size)
    lag = int(np.argmax(lags))
    lag -= size if lag > size // 2 else 0
    ours, theirs = ours[max(lag, 0) :], theirs[max(-lag, 0) :]
    blocks = min(len(ours), len(theirs)) // BLOCK
    ours, theirs = (x[: blocks * BLOCK].reshape(blocks, BLOCK) for x in (ours, theirs))
    energy = np.sqrt(np.square(ours).sum(axis=1) * np.square(theirs).sum(axis=1))
    alike = (ours * theirs).sum(axis=1) >= 0.95 * energy
    return abs(lag) <= MOST_DELAY and float(alike.mean()) >= (0.5 if is_damaged else 0.98)


def examine(case: int, formats: dict[str, list[bytes]], folder: Path) -> Outcome:
    """Damage one file, load it, and compare."""
    rng = random.Random(case)
    suffix = list(formats)[case % len(formats)]
    damage = DAMAGES[(case + case // len(formats)) % len(DAMAGES)]
    path = folder / f"{case}.{suffix}"
    path.write_bytes(damage(formats[suffix][0], formats[suffix][-1], rng))
    expected = as_ffmpeg_decodes(path)
    rate = expected[1] if expected else RATE
    kind = rng.choice(("start", "start", "center", "spread"))
    started = time.monotonic()
    loaded, what = None, "read"
    window = {"sample_rate": rate, "min_duration": 0.1}
    try:
        loaded = audio.load(path, duration=40.0, excerpt="start", **window)
        if kind != "start":
            audio.load(path, duration=1.0, excerpt=kind, num_windows=4, **window)
    except audio.AudioError as error:
        what = f"refused: {error}"
    seconds = time.monotonic() - started
    with contextlib.suppress(audio.AudioError):
        tags.read(path)
    same = None
    if expected is not None and len(expected[0]) > 0.2 * rate:
        mono = expected[0].mean(axis=1)
        if audio.SILENCE < np.ptp(mono) < audio.FULL_SCALE:  # as no NaN is
            same = loaded is not None and is_same(
                loaded.waveform, mono, FORMATS[suffix][1], damage in (flip, change_header)
            )
            is_behind = damage is tag or (damage is join and not suffix.endswith(COUNTLESS))
            if is_behind and loaded and not same:
                # A header tells how much of it is the file: what is behind it may be left out.
                path.write_bytes(formats[suffix][0])
                alone = as_ffmpeg_decodes(path)
                assert alone is not None
                same = is_same(loaded.waveform, alone[0].mean(axis=1), FORMATS[suffix][1])
    if same is False:
        what += f", {len(expected[0])} samples expected"
        what += "" if loaded is None else f", {len(loaded.waveform)} by {loaded.decoder}"
    path.unlink()
    return Outcome(f"{damage.__name__} {suffix} #{case}", what, same, seconds)


def run(cases: range, folder: Path, processes: int) -> list[Outcome]:
    """Examine files in processes that must not end."""
    formats = write_formats(folder)
    work = functools.partial(examine, formats=formats, folder=folder)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        outcomes = list(pool.map(work, cases, chunksize=8))  # which raises if a process died
        peaks = pool.map(peak, range(processes))
        assert max(peaks) < MOST_MEMORY, "MiB were taken"
    return outcomes


def peak(_: int) -> float:
    """Return the most memory that this process and any of its ffmpegs took, in MiB.

    What `getrusage` says of a process itself begins with what its parent held when it was started.
    """
    time.sleep(0.2)  # so that each process answers once
    status = Path("/proc/self/status").read_text()
    own = int(status.split("VmHWM:")[1].split()[0])
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 2**10


def summarise(outcomes: list[Outcome]) -> str:
    compared = [outcome for outcome in outcomes if outcome.is_same is not None]
    differ = [outcome for outcome in compared if not outcome.is_same]
    refused = sum(outcome.what.startswith("refused") for outcome in outcomes)
    lines = [
        f"{len(outcomes)} files, {refused} refused; the slowest took "
        f"{max(outcome.seconds for outcome in outcomes):.1f} s; ffmpeg decodes {len(compared)} in "
        f"full, of which {len(differ)} differ"
    ]
    lines += [f"{outcome.name}: {outcome.what}" for outcome in differ]
    return "\n".join(lines)


def test_no_damaged_container_does_harm_and_whole_ones_are_read_right(tmp_path):
    outcomes = run(range(CASES), tmp_path, 2)
    print(summarise(outcomes))
    assert max(outcome.seconds for outcome in outcomes) < MOST_SECONDS
    compared = [outcome.is_same for outcome in outcomes if outcome.is_same is not None]
    assert len(compared) > 0.2 * len(outcomes)
    assert compared.count(False) <= 0.01 * max(len(compared), 100), summarise(outcomes)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(KeyboardInterrupt):
        found = run(range(int(sys.argv[1])), Path(scratch), 2)
        print(summarise(found))
        reasons = collections.Counter(o.what[:60] for o in found if o.what.startswith("refused"))
        for reason, count in reasons.most_common():
            print(f"{count:5} {reason}")
