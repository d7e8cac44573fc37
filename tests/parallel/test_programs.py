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
import os, sys
print(os.environ["NUMBA_CACHE_DIR"], file=sys.stderr)
"""


def run(folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    own = (programs.FOLDER, programs.NUMBA_FOLDER)
    environ = {name: value for name, value in os.environ.items() if name not in own}
    environ |= {"XDG_CACHE_HOME": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    spare = folder / "tmp"
    spare.mkdir(exist_ok=True)
    environ |= {"TMPDIR": str(spare)}
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
def test_where_the_cache_folder_is_not_ones_own_a_temporary_one_serves(
    tmp_path: Path, obstacle: str
) -> None:
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
    done = run(tmp_path)
    assert done.stdout == "3.0\n"
    assert not entries(tmp_path)
    assert [*tmp_path.glob(f"tmp/vae_jax-{os.geteuid()}-programs-*/*-cache")]
    numba = tmp_path / ("tmp" if obstacle == "file" else "vae_jax")
    assert done.stderr.startswith(str(numba))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "--xla_gpu_deterministic_ops=true"),
        ("--xla_a=1", "--xla_a=1 --xla_gpu_deterministic_ops=true"),
        ("--xla_gpu_deterministic_ops=false", "--xla_gpu_deterministic_ops=false"),
    ],
)
def test_a_gpu_repeats_itself_exactly_unless_told_otherwise(monkeypatch, given, expected):
    monkeypatch.setenv("XLA_FLAGS", given or "")
    programs.be_exact()
    assert os.environ["XLA_FLAGS"] == expected


def test_xla_takes_what_makes_a_gpu_exact(tmp_path: Path) -> None:
    assert run(tmp_path, XLA_FLAGS=programs.EXACT).stdout == "3.0\n"
