"""What the environment of a command may hold, and how a command ends then."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = """
import sys
from vae_jax import process
from vae_jax.parallel import devices
process.run_command(lambda _: devices.use_cores(1))
"""
DRAW = """
from vae_jax import process
def draw(_):
    import matplotlib
    print(matplotlib.get_backend())
process.run_command(draw)
"""


def run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    job = [sys.executable, *command]
    return subprocess.run(
        job, env=os.environ | environ, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("platform", ["cuda", "tpu", "nonsense"])
def test_an_accelerator_that_is_not_there_is_named(platform: str) -> None:
    done = run("-c", TRAIN, JAX_PLATFORMS=platform)
    assert done.returncode == 1
    assert "vae_jax: JAX finds no device (" in done.stderr
    assert f"JAX_PLATFORMS is {platform!r}: unset it, or set it to cpu." in done.stderr
    assert "Traceback" not in done.stderr


def test_plots_need_no_window() -> None:
    assert run("-c", DRAW, MPLBACKEND="nonsense").stdout.casefold() == "agg\n"


def test_a_config_file_that_exits_is_named(tmp_path: Path) -> None:
    config = tmp_path / "ends.py"
    config.write_text("import sys\nsys.exit(3)\n")
    done = run("-m", "vae_jax.main", f"--config={config}")
    assert done.returncode == 1
    assert f"the config {config}, or what the command line sets in it, fails" in done.stderr
    assert "SystemExit: 3" in done.stderr


def test_help_is_no_failure() -> None:
    assert run("-m", "vae_jax.main", "--help").returncode == 0
