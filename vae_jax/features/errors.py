"""Why a track cannot be used."""

# When it is worth another try.
NEVER = ""
WITH_FFMPEG = "with ffmpeg"
READABLE = "when it can be read"
AGAIN = "at the next run"


class AudioError(Exception):
    """A track that cannot be used; the message is one sentence that says why.

    It fails that track, never the run.

    Attributes
    ----------
    retry
        When it is worth another try; NEVER if the file is to blame and not the machine.
    """

    def __init__(self, reason: str, retry: str = NEVER) -> None:
        super().__init__(reason)
        self.retry = retry


class MachineError(AudioError):
    """A failure that another machine, or a later run, may not have."""

    def __init__(self, reason: str, retry: str = AGAIN) -> None:
        super().__init__(reason, retry)
