"""Decodes files with ffmpeg, where libsndfile cannot and ffmpeg is installed; for `features.audio`.

It reads an open descriptor, with the demuxer of the file's signature: neither a name nor the
content can make it an option, a pattern, a playlist or a URL. The sound comes through a pipe, from
the beginning to the last window, since not every container can be sought in exactly.
"""

import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from threading import Timer
from typing import IO, BinaryIO, cast

import numpy as np

from vae_jax.features.errors import NO_AUDIO, NO_DECODER, WITH_FFMPEG, AudioError, MachineError
from vae_jax.features.sndfile import Mix, Parts

TIME_LIMIT = 600  # s, for one run
MOST_MEMORY = 2**28  # bytes that a damaged header may ask for at once
BLOCK_BYTES = 2**18
AU_HEADER = ">4sIIIII"  # magic, offset, size, encoding, rate, channels
AU_TYPES = {3: ">i2", 6: ">f4"}
# The decoders of these put out floats that hold no more than 16 bits, which is what librosa takes.
INTEGER = re.compile(r"Audio: (?!wavpack)(?:[^\n]*, )(?:fltp|s16p?|u8p?)\b")
# Demuxers whose packets have true times: elsewhere, only decoding tells how long the sound is.
TIMED = ("mov",)
DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d\.\d+)")
ESTIMATED = "Estimating duration from bitrate"


def is_installed() -> bool:
    """Say whether there is an ffmpeg."""
    return shutil.which("ffmpeg") is not None


class FfmpegSource:
    """An open file.

    Attributes
    ----------
    rate, channels
        The sample rate in Hz, and the number of channels.
    total
        Number of frames by the times of packets; the true number is close.
    promised
        What the header says, in seconds, or None.

    Raises
    ------
    MachineError
        If there is no ffmpeg.
    AudioError
        If it cannot read the file.
    """

    name = "ffmpeg"
    is_estimate = True  # whether `total` is one

    def __init__(self, file: BinaryIO, demuxer: str) -> None:
        if not is_installed():
            raise MachineError(
                "no decoder for this format: install ffmpeg, or convert it to flac or mp3",
                NO_DECODER,
                WITH_FFMPEG,
            )
        self._file, self._demuxer = file, demuxer
        seconds, self.promised, self._codec = self._examine()
        self._has_begun = False
        self._decoding = self._decode()
        self.total = round(seconds * self.rate)

    def __enter__(self) -> "FfmpegSource":
        return self

    def __exit__(self, *_: object) -> None:
        self._decoding.close()

    def read(
        self, starts: Sequence[int], count: int, mix: Mix
    ) -> tuple[list[np.ndarray], int | None]:
        """Return mono windows, [<= count] each, and where the file ends if that was met."""
        if self._has_begun:
            self._decoding.close()
            self._decoding = self._decode()
        self._has_begun = True
        parts, width = Parts(starts, count), self.channels * np.dtype(self._dtype).itemsize
        while not parts.are_whole:
            data = self._decoding.output.read(max(1, BLOCK_BYTES // width) * width)
            whole = len(data) // width * width
            if not whole:
                return parts.sound, parts.position
            frames = np.frombuffer(data[:whole], self._dtype).reshape(-1, self.channels)
            scale = np.float32(2**15 if self._dtype == AU_TYPES[3] else 1)
            parts.add(frames.astype(np.float32) / scale, mix)
        return parts.sound, None

    def _examine(self) -> tuple[float, float | None, str]:
        """Return how long the sound lasts, what the header promises, and the codec."""
        copy = ("-c", "copy") if self._demuxer in TIMED else ()
        run = self._run(*copy, "-progress", "pipe:1", "-f", "null", "-", level="info")
        progress = run.output.read().decode(errors="replace")
        log = run.close()
        times = re.findall(r"out_time_us=(\d+)", progress)
        if "matches no streams" in log:
            raise AudioError("it holds no audio", NO_AUDIO)
        if not times:
            raise AudioError(f"not audio that ffmpeg can decode ({_reason(log)})")
        header, promised = DURATION.search(log), None
        if header and ESTIMATED not in log:
            hours, minutes, seconds = map(float, header.groups())
            promised = 3600 * hours + 60 * minutes + seconds
        codec = "pcm_s16be" if INTEGER.search(log) else "pcm_f32be"
        return int(times[-1]) / 1e6, promised, codec

    def _decode(self) -> "_Run":
        """Begin to decode; learn the sample rate and the number of channels."""
        run, size = self._run("-c:a", self._codec, "-f", "au", "-"), struct.calcsize(AU_HEADER)
        head = run.output.read(size)
        if len(head) < size:
            raise AudioError(f"not audio that ffmpeg can decode ({_reason(run.close())})")
        _, offset, _, encoding, self.rate, self.channels = struct.unpack(AU_HEADER, head)
        run.output.read(offset - size)
        self._dtype = AU_TYPES[encoding]
        return run

    def _run(self, *options: str, level: str = "error") -> "_Run":
        """Run ffmpeg on the file's first stream of sound."""
        descriptor = self._file.fileno()
        os.lseek(descriptor, 0, os.SEEK_SET)
        command = ["ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-v", level]
        command += ["-max_alloc", str(MOST_MEMORY), "-threads", "1"]
        command += ["-protocol_whitelist", "file", "-f", self._demuxer]
        command += ["-i", f"file:/dev/fd/{descriptor}", "-map", "0:a:0", *options]
        return _Run(command, descriptor)


class _Run:
    """A process with its output and its log; it is killed when it takes too long."""

    def __init__(self, command: Sequence[str], descriptor: int) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (`close` does; a pipe could fill up)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=(descriptor,),
            )
        except OSError as error:
            raise MachineError(f"ffmpeg does not start: {error.strerror}") from error
        self.output = cast(IO[bytes], self._process.stdout)
        self._limit = Timer(TIME_LIMIT, self._process.kill)
        self._limit.daemon = True
        self._limit.start()

    def close(self) -> str:
        """End it, if it has not ended; return its log."""
        self._limit.cancel()
        if self._errors.closed:
            return ""
        self.output.close()
        self._process.kill()
        self._process.wait()
        with self._errors as errors:
            errors.seek(0)
            return errors.read(2**20).decode(errors="replace")


def _reason(log: str) -> str:
    """Return the first error in a log."""
    lines = [re.sub(r"^\[[^]]*\] ?", "", line.strip()) for line in log.splitlines()]
    wrong = [line for line in lines if re.search("not found|nvalid|rror|annot|nsupported", line)]
    return re.sub(r"/dev/fd/\d+: |file:", "", (wrong or lines[-1:] or ["no reason given"])[0])
