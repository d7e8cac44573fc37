"""Compiled programs that are kept between runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vae_jax.parallel import programs

# Compiles one program as a command would, and prints the result.
JOB = """
from vae_jax.parallel import programs
programs.keep()
import jax, jax.numpy as jnp
print(jax.jit(lambda x: jnp.linalg.inv(x) @ x)(jnp.eye(3)).sum())
"""


def run(folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if k != programs.FOLDER}
    environ |= {"XDG_CACHE_HOME": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    job = [sys.executable, "-c", JOB]
    return subprocess.run(job, env=environ | changed, capture_output=True, text=True, timeout=120)


def entries(folder: Path) -> dict[str, int]:
    found = folder.glob("vae_jax/programs-*/*-cache")
    return {path.name: path.stat().st_mtime_ns for path in found}


def test_programs_are_kept_for_the_next_run(tmp_path: Path) -> None:
    assert run(tmp_path).stdout == "3.0\n"
    kept = entries(tmp_path)
    assert any("inv" in name or "lambda" in name for name in kept)
    assert run(tmp_path).stdout == "3.0\n"
    assert entries(tmp_path) == kept
    assert {path.stat().st_mode & 0o077 for path in tmp_path.glob("vae_jax/*")} == {0}


def test_damaged_programs_are_compiled_again(tmp_path: Path) -> None:
    run(tmp_path)
    for path in tmp_path.glob("vae_jax/programs-*/*-cache"):
        path.write_bytes(path.read_bytes()[:100])
    again = run(tmp_path)
    assert again.stdout == "3.0\n"
    assert again.returncode == 0


def test_a_folder_that_the_user_names_is_used(tmp_path: Path) -> None:
    assert run(tmp_path, **{programs.FOLDER: str(tmp_path / "own")}).stdout == "3.0\n"
    assert not entries(tmp_path)
    assert any((tmp_path / "own").iterdir())


@pytest.mark.parametrize("obstacle", ["file", "others"])
def test_where_none_can_be_kept_all_works(tmp_path: Path, obstacle: str) -> None:
    if obstacle == "file":
        (tmp_path / "vae_jax").touch()
    elif os.geteuid():
        pytest.skip("root alone may give a folder away")
    else:
        run(tmp_path)
        for path in tmp_path.glob("vae_jax/programs-*"):
            os.chown(path, 12345, 12345)
            for entry in path.iterdir():
                entry.unlink()
    assert run(tmp_path).stdout == "3.0\n"
    assert not entries(tmp_path)
