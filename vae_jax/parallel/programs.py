"""Compiled programs are kept between runs, in the user's cache folder.

XLA compiles for seconds, on an accelerator for minutes, what a second run of the same shapes needs
again. JAX's own cache holds it. Its entries are machine code, so the folder is the user's alone,
and there is one for each kind of processor that shares the home.
"""

import contextlib
import hashlib
import os
import platform
import stat
import tempfile
from pathlib import Path

FOLDER = "JAX_COMPILATION_CACHE_DIR"  # the variable that says where, also to the user
NUMBA_FOLDER = "NUMBA_CACHE_DIR"  # Numba, in UMAP, fails where it finds no place of its own
DETERMINISTIC = "xla_gpu_deterministic_ops"  # in XLA_FLAGS
EXACT = f"--{DETERMINISTIC}=true"
SETTINGS = {
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**30),  # bytes; what was used last stays
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
}


def keep() -> None:
    """Let JAX and Numba, which must not be imported yet, keep what they compile.

    Where the environment names a folder, nothing is changed. Where the user's cache folder cannot
    be written, a temporary folder serves.
    """
    if FOLDER not in os.environ and (folder := _own(f"programs-{_processor()}")):
        os.environ[FOLDER] = folder
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
    if NUMBA_FOLDER not in os.environ and (folder := _own("numba")):
        os.environ[NUMBA_FOLDER] = folder


def be_exact() -> None:
    """Let a GPU compute the same bits every time, unless the environment says otherwise.

    Without that, sums by atomic additions come out in another order, and a run that was killed and
    continued differs from an undisturbed one. It is read when JAX first uses a device; on a CPU it
    changes nothing.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {EXACT}".strip()


def cache_folder() -> Path:
    """Return the folder for what can be made again (XDG Base Directory Specification)."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "vae_jax"


def _own(name: str) -> str:
    """Make a folder that nobody else can write; return its path, or nothing if there is none."""
    with contextlib.suppress(OSError, RuntimeError):  # there is no home
        if _is_own(cache_folder() / name):
            return str(cache_folder() / name)
    with contextlib.suppress(OSError):
        spare = Path(tempfile.gettempdir()) / f"vae_jax-{os.geteuid()}-{name}"
        if _is_own(spare):
            return str(spare)
    return ""


def _is_own(folder: Path) -> bool:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = folder.lstat()
    is_safe = about.st_uid == os.geteuid() and not about.st_mode & 0o022
    return stat.S_ISDIR(about.st_mode) and is_safe and os.access(folder, os.W_OK)


def _processor() -> str:
    """Return a short name for the instructions that this machine's processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    text = "\n".join([platform.machine(), *(kind or lines[:1])])
    return hashlib.sha256(text.encode()).hexdigest()[:8]
