"""Compiled programs are kept between runs, in the user's cache folder.

XLA compiles for seconds, on an accelerator for minutes, what a second run of the same shapes needs
again. JAX's own cache holds it. Its entries are machine code, so the folder is the user's alone,
and there is one for each kind of processor that shares the home.
"""

import hashlib
import os
import platform
from pathlib import Path

FOLDER = "JAX_COMPILATION_CACHE_DIR"  # the variable that says where, also to the user
SETTINGS = {
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**30),  # bytes; what was used last stays
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
}


def keep() -> None:
    """Let JAX, which must not be imported yet, keep what it compiles.

    Where the environment names a folder, nothing is changed. Where the user's cache folder cannot
    be written, nothing is kept.
    """
    if FOLDER in os.environ:
        return
    try:
        folder = cache_folder() / f"programs-{_processor()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_own = folder.stat().st_uid == os.geteuid() and os.access(folder, os.W_OK)
    except (OSError, RuntimeError):  # there is no home
        return
    if is_own:
        os.environ[FOLDER] = str(folder)
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)


def cache_folder() -> Path:
    """Return the folder for what can be made again (XDG Base Directory Specification)."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "vae_jax"


def _processor() -> str:
    """Return a short name for the instructions that this machine's processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    text = "\n".join([platform.machine(), *(kind or lines[:1])])
    return hashlib.sha256(text.encode()).hexdigest()[:8]
