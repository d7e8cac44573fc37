"""The environment that launch scripts make, without the network; pip is a stand-in but once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Installs a pip that writes down what it is asked for.
ENSUREPIP = """
import pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
(site / "pip.py").write_text("import sys; print('pip', *sys.argv[1:])")
(site / "pip-0.dist-info").mkdir()
for name in ("METADATA", "RECORD"):
    (site / "pip-0.dist-info" / name).write_text("Name: pip\\nVersion: 0\\n")
"""
PIP = "pip install -qq --disable-pip-version-check --no-compile"
NEWER_PIP = "pip install -qq --disable-pip-version-check --retries=0 --upgrade pip"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / "setup.py").touch()
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / "ensurepip.py").write_text(ENSUREPIP)
    return folder


def install(checkout: Path, extras: str = "", **env: str) -> tuple[int, str]:
    """Source _venv.sh as the scripts do; return the status and all that is said."""
    command = ["bash", "-euo", "pipefail", "-c", '. launch/_venv.sh "$1"', "bash", extras]
    stubs = {"PYTHONPATH": str(checkout.parent / "stubs")}
    done = subprocess.run(
        command,
        cwd=checkout,
        env=os.environ | stubs | env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout


def packages(checkout: Path) -> Path:
    [folder] = (checkout / ".venv").glob("lib/python*/site-packages")
    return folder


def interpreter(folder: Path, *lines: str) -> str:
    """Write an interpreter that runs some lines of shell first; return its path."""
    path = folder / "interpreter"
    path.write_text("\n".join(["#!/bin/bash", *lines, f'exec {sys.executable} "$@"', ""]))
    path.chmod(0o755)
    return str(path)


# Each takes from a sound environment what an interruption, or an upgrade of Python, takes from it.


def dangle(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(checkout / "gone")


def lose_interpreter(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv" / "bin")


def lose_pip(checkout: Path) -> None:
    (packages(checkout) / "pip.py").unlink()
    shutil.rmtree(packages(checkout) / "pip-0.dist-info")


def halve_pip(checkout: Path) -> None:
    (packages(checkout) / "pip.py").unlink()
    (packages(checkout) / "pip-0.dist-info" / "RECORD").unlink()


@pytest.mark.parametrize(
    "damage", [dangle, lose_interpreter, lose_pip, halve_pip], ids=lambda damage: damage.__name__
)
def test_an_environment_that_was_left_half_made_is_mended(checkout, damage):
    assert install(checkout, PYTHON=sys.executable)[0] == 0
    damage(checkout)
    for stamp in (checkout / ".venv").glob("installed-*"):
        stamp.unlink()
    code, said = install(checkout, PYTHON=sys.executable)
    assert code == 0
    assert said.endswith(f"installing vae_jax into .venv ...\n{NEWER_PIP}\n{PIP} -e .\n")
    assert install(checkout, PYTHON=sys.executable) == install(checkout) == (0, "")


def test_an_environment_of_another_python_than_is_asked_for_is_made_anew(tmp_path, checkout):
    install(checkout, PYTHON=sys.executable)
    (checkout / ".venv" / "mine").touch()
    other = interpreter(tmp_path, '[[ $* != *SOABI* ]] || { echo "another"; exit; }')
    code, said = install(checkout, PYTHON=other)
    assert code == 0
    assert f"making .venv anew for {other}, another: it is cpython-" in said
    assert f"{PIP} -e ." in said
    assert not (checkout / ".venv" / "mine").exists()


def test_extras_and_another_folder_are_installed_once_each(tmp_path, checkout):
    install(checkout, PYTHON=sys.executable)
    assert f"{PIP} -e .[test]" in install(checkout, "[test]")[1]
    assert install(checkout, "[test]") == install(checkout) == (0, "")
    moved = checkout.rename(tmp_path / "moved")
    assert f"{PIP} -e ." in install(moved)[1]


def test_the_oldest_versions_that_setup_py_allows_go_into_an_environment_of_their_own(checkout):
    required = '    install_requires=[\n"a_b>=1.2",\n"jax[cuda13]>=0.10,<1",\n"torch==2",\n    ],\n'
    setup = f'TEST = ["moto>=5"]\npython_requires=">=3.11"\n{required}"docs": ["sphinx>=8"]\n'
    (checkout / "setup.py").write_text(setup)
    said = install(checkout, PYTHON=sys.executable, OLDEST="1")[1]
    assert f"{PIP} --constraint=.venv-oldest/oldest.txt -e ." in said
    assert (checkout / ".venv-oldest" / "oldest.txt").read_text() == "a_b==1.2\njax==0.10\n"
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("line", ["exit 127", "[[ $* != *SOABI* ]] || exit 0  # older: no word"])
def test_a_python_that_does_not_run_or_is_too_old_is_refused(tmp_path, checkout, line):
    code, said = install(checkout, PYTHON=interpreter(tmp_path, line))
    assert code == 1
    assert "needs Python 3.11 or newer; name one with PYTHON=" in said
    assert not (checkout / ".venv").exists()


def test_a_python_without_pip_is_told_from_one_that_fails(tmp_path, checkout):
    (tmp_path / "stubs" / "ensurepip.py").write_text("raise SystemExit(1)")
    code, said = install(checkout, PYTHON=sys.executable)
    assert code == 1
    assert "This Python has no pip: install python3-venv" in said


def test_a_folder_that_is_no_environment_is_never_emptied(checkout):
    (checkout / "mine").mkdir()
    (checkout / "mine" / "music.wav").touch()
    install(checkout, PYTHON=sys.executable, VENV="mine")
    assert (checkout / "mine" / "music.wav").exists()


# Builds a package that requires nothing, so that pip has nothing to look for.
BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    parts = {
        "METADATA": "Metadata-Version: 2.1\\nName: vae_jax\\nVersion: 0\\n",
        "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(f"{folder}/vae_jax-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("vae_jax.py", "")
        for name, content in parts.items():
            wheel.writestr(f"vae_jax-0.dist-info/{name}", content)
    return "vae_jax-0-py3-none-any.whl"
"""


@pytest.mark.slow
def test_the_real_pip_mends_itself_and_a_package_that_it_had_half_installed(
    tmp_path, checkout, monkeypatch
):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "stubs" / "ensurepip.py").unlink()
    (checkout / "backend.py").write_text(BACKEND)
    (checkout / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    assert install(checkout, PYTHON=sys.executable)[0] == 0
    (packages(checkout) / "vae_jax.py").unlink()
    (packages(checkout) / "vae_jax-0.dist-info" / "RECORD").unlink()
    next(packages(checkout).glob("pip-*/RECORD")).unlink()
    shutil.rmtree(packages(checkout) / "pip" / "_internal")
    (packages(checkout) / "pip" / "_vendor" / "resolvelib" / "structs.py").write_text("newer")
    next((checkout / ".venv").glob("installed-*")).unlink()
    code, said = install(checkout)
    assert code == 0, said
    python = checkout / ".venv" / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", "import vae_jax"], capture_output=True)
    assert done.returncode == 0, done.stderr
