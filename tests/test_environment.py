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
FAIL = """
import threading, time
from vae_jax import process
def fail(_):
    threading.Thread(target=time.sleep, args=(600,)).start()
    {}["missing"]
process.run_command(fail)
"""
HANG_UP = """
import os, signal
from vae_jax import process
process.run_command(lambda _: os.kill(os.getpid(), signal.SIGHUP))
"""
SCRIPT = """
import vae_jax
settings = {{"manifest": {0!r}, "data_dir": {1!r} + "/data", "feature.num_workers": 1}}
vae_jax.train("mlp", {1!r} + "/results", settings)
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


@pytest.mark.parametrize("name", ["JAX_PLATFORMS", "JAX_DISABLE_JIT", "XLA_FLAGS"])
def test_settings_of_jax_are_checked_before_any_work(
    collection: Path, tmp_path: Path, name: str
) -> None:
    value = {"XLA_FLAGS": "--nonsense"}.get(name, "1")
    settings = "--config=mlp", f"--config.manifest={collection}", f"--outdir={tmp_path}/results"
    done = run(
        "-m", "vae_jax.main", *settings, f"--config.data_dir={tmp_path}/data", **{name: value}
    )
    assert done.returncode
    assert name in done.stderr.splitlines()[-1]
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "results").exists()


def test_a_fault_ends_the_command_although_threads_go_on() -> None:
    done = run("-c", FAIL)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("vae_jax: this KeyError is a fault of vae_jax")


def test_a_script_that_would_do_the_whole_job_in_every_process_is_told_so(
    collection: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(str(collection), str(tmp_path)))
    done = run(str(script), PYTHONPATH=os.getcwd())
    assert "put what it does under if __name__ == '__main__'" in done.stderr.splitlines()[-1]


def test_a_closed_terminal_stops_a_command_unless_nohup_is_given() -> None:
    assert run("-c", HANG_UP).returncode == os.EX_TEMPFAIL
    assert run("-c", f"import signal; signal.signal(1, signal.SIG_IGN){HANG_UP}").returncode == 0


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
