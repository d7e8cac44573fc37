import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import vae_jax
from vae_jax import presets
from vae_jax.errors import UserError

ROOT = Path(__file__).parents[1]


def command(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "vae_jax", *arguments], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", ["track:conv2d", "configs/track.py:conv2d"])
def test_a_preset_is_found_by_name_from_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path, _, variant = presets.resolve(name).partition(":")
    assert Path(path).samefile(ROOT / "configs" / "track.py")
    assert variant == "conv2d"


def test_a_file_of_ones_own_comes_before_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for name in ("my.py", "configs/track.py"):
        (tmp_path / name).touch()
        assert presets.resolve(name) == name


@pytest.mark.parametrize("name", ["nothing", "nothing.py", "other/track.py", "track.txt", ""])
def test_what_is_neither_is_refused_with_the_presets_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="conv, demo, hybrid, lyrics, mlp, track"):
        presets.resolve(name)


@pytest.mark.parametrize("config", ["--config=track", "--config track", "-config=track"])
def test_all_spellings_of_the_flag_name_a_preset(tmp_path, config):
    done = command(tmp_path, "run", *config.split(), "--print_config")
    assert done.returncode == 0, done.stderr
    assert '"name": "track"' in done.stdout


def test_the_console_command_lists_its_commands_and_its_version(tmp_path):
    assert "compare" in command(tmp_path, "--help").stdout
    assert command(tmp_path, "--version").stdout == f"vae_jax {vae_jax.__version__}\n"
    wrong = command(tmp_path, "nonsense")
    assert wrong.returncode == 1
    assert "no command 'nonsense'" in wrong.stderr


@pytest.mark.parametrize("name", ["run", "compare", "demo", "download"])
def test_a_command_of_the_console_is_that_of_its_module(tmp_path, name):
    module = "vae_jax.main" if name == "run" else f"vae_jax.{name}"
    alone = subprocess.run(
        [sys.executable, "-m", module, "--nonsense"], cwd=tmp_path, capture_output=True, text=True
    )
    done = command(tmp_path, name, "--nonsense")
    assert done.returncode == alone.returncode != 0
    assert done.stderr == alone.stderr


@pytest.mark.slow
def test_a_wheel_holds_the_presets_the_explorers_page_and_the_marker_of_types(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*build, f"--wheel-dir={tmp_path}", str(ROOT)], capture_output=True)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    page = {path.name for path in (ROOT / "vae_jax" / "explorer" / "page").iterdir()}
    assert {f"vae_jax/explorer/page/{name}" for name in page} <= names
    assert {"vae_jax/configs/track.py", "vae_jax/py.typed", "vae_jax/stages/runner.py"} <= names
