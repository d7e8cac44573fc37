"""Names a folder so that Orbax and TensorStore take the name as it is.

Orbax looks for files by glob patterns that begin with the folder's own path, in which `[`, `*` and
`?` then stand for other characters; TensorStore takes a backslash for a slash, and no name that is
not UTF-8. This was seen with Orbax 0.12.8 and TensorStore 0.1.86. The kernel lends every open
folder a name without any of these.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vae_jax.errors import UserError

_OPEN_FOLDERS = Path("/proc/self/fd")
_MISREAD = re.compile(r"[\[\]*?\\\udc80-\udcff]")  # the last are bytes that are not UTF-8


@contextmanager
def literal(folder: Path) -> Iterator[Path]:
    """Yield an absolute path of a folder that exists; it holds until the block ends.

    Raises
    ------
    UserError
        If there is none, since the system lends no names.
    """
    path = folder.absolute()
    check(path)
    if not _MISREAD.search(str(path)):
        yield path
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        yield _OPEN_FOLDERS / str(handle)
    finally:
        os.close(handle)


def check(folder: Path, is_alone: bool = True) -> None:
    """Refuse a folder whose checkpoints could be written, but not read.

    The processes of a job must agree on names, which those that the kernel lends do not.
    """
    found = _MISREAD.search(str(folder.absolute()))
    if found and not (_OPEN_FOLDERS.is_dir() and is_alone):
        raise UserError(
            f"checkpoints cannot be kept in {folder.absolute()}, whose name has the character "
            f"{found[0]!r}: choose another folder with --config.checkpoint_dir."
        )
