"""Why a track cannot be used, or only in part: by kind, with what to do about it."""

# When it is worth another try.
NEVER = ""
WITH_FFMPEG = "with ffmpeg"
READABLE = "when it can be read"
AGAIN = "at the next run"

# Kinds of failures.
MISSING, UNREADABLE, MACHINE, NO_DECODER = "missing", "unreadable", "machine", "no decoder"
NO_AUDIO, DAMAGED, UNSUPPORTED = "no audio", "damaged", "unsupported"
TOO_SHORT, SILENT, NO_LYRICS, NO_VECTOR = "too short", "silent", "no lyrics", "no vector"
# Kinds of warnings, each of which begins with its kind.
CUT, ENDS_EARLY, ANTIPHASE = "shorter than its header", "cut", "its channels cancel out"
LONG_LYRICS = "lyrics cut"

REMEDIES = {
    MISSING: "correct audio_path, or bring the file back",
    UNREADABLE: "make the file readable: the next run tries it again",
    MACHINE: "nothing: the next run tries it again",
    NO_DECODER: "install ffmpeg: the next run tries it again",
    NO_AUDIO: "replace the file, or leave it out",
    DAMAGED: "copy or fetch the file again",
    UNSUPPORTED: "convert the file to flac, mp3 or wav",
    TOO_SHORT: "leave the file out, or lower config.feature.min_duration",
    SILENT: "replace the file, or leave it out",
    NO_LYRICS: "fill in the lyrics, or leave the cell empty",
    NO_VECTOR: "add the track to the file of vectors",
    CUT: "copy or fetch the file again",
    ENDS_EARLY: "copy or fetch the file again",
    ANTIPHASE: "invert one channel, so that both are heard",
    LONG_LYRICS: "see whether the cell holds the lyrics of one song",
}


def kind_of(warning: str) -> str:
    """Return a warning's kind, with which it begins."""
    return warning.partition(":")[0]


class AudioError(Exception):
    """A track that cannot be used; the message is one sentence that says why.

    It fails that track, never the run.

    Attributes
    ----------
    retry
        When it is worth another try; NEVER if the file is to blame and not the machine.
    kind
        One of the kinds in `REMEDIES`.
    """

    def __init__(self, reason: str, kind: str = DAMAGED, retry: str = NEVER) -> None:
        super().__init__(reason)
        self.kind, self.retry = kind, retry


class MachineError(AudioError):
    """A failure that another machine, or a later run, may not have."""

    def __init__(self, reason: str, kind: str = MACHINE, retry: str = AGAIN) -> None:
        super().__init__(reason, kind, retry)
