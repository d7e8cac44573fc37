"""The documentation: its tutorials and examples run, and it names nothing that does not exist."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vae_jax
from tests import audio_files
from vae_jax import api, demo, presets
from vae_jax.__main__ import COMMANDS
from vae_jax.config import KEYS

ROOT = Path(__file__).parents[1]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / name / "README.md" for name in ("launch", "data", "checkpoints")),
    *sorted((ROOT / "docs").glob("*.rst")),
)
TUTORIALS = ("first_map", "comparing", "batch_job")  # in this order, in one folder
GENRES = ("rock", "jazz", "folk")
SMALL = {
    "feature.sample_rate": 8000,
    "feature.n_fft": 512,
    "feature.hop_length": 256,
    "feature.n_mels": 32,
    "feature.num_workers": 1,
    "train.num_steps": 10,
    "train.batch_size": 8,
    "model.hidden_dims": (16,),
    "model.segment_frames": 16,
    "cluster.num_seeds": 2,
    "visualize.method": "pca",
    "visualize.color_by": (),  # few pictures, which take most of the time
}


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the language and the text of a tutorial's code blocks, in order."""
    found = re.findall(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", page + "\n", re.MULTILINE)
    return [(language, re.sub("^   ", "", text, flags=re.MULTILINE)) for language, text in found]


def write_music(folder: Path, count: int) -> None:
    """Write tracks of two seconds in folders by genre."""
    for i in range(count):
        audio_files.write_music(folder / GENRES[i % 3] / f"{i}.wav", sample_rate=8000, seed=i)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with music and the command vae-jax, whose trainings are small."""
    write_music(tmp_path / "Music", 18)
    for i in range(12):
        audio_files.write_music(tmp_path / "new" / f"{i}.wav", sample_rate=8000, seed=100 + i)
    rows = "".join(f"{i},new/{i}.wav\n" for i in range(12))
    (tmp_path / "new.csv").write_text(f"id,audio_path\n{rows}")
    small = [f"--config.{key}={value}" for key, value in SMALL.items()]
    command = tmp_path / "bin" / "vae-jax"
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\nimport sys\nfrom vae_jax.__main__ import main\n"
        f"if __name__ == '__main__':\n"
        f"    if sys.argv[1] == 'run' and sys.argv[2].startswith('--config='):\n"
        f"        sys.argv[3:3] = {small}\n"
        f"    main()\n"
    )
    command.chmod(0o755)
    for name, value in {
        "HOME": str(tmp_path),
        "PATH": f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.slow
def test_the_tutorials_run_from_begin_to_end(home):
    for name in TUTORIALS:
        for language, text in blocks((ROOT / "docs" / f"{name}.rst").read_text()):
            if language == "text":
                continue
            start = {"bash": ["bash", "-euc"], "python": [sys.executable, "-c"]}[language]
            done = subprocess.run([*start, text], cwd=home, capture_output=True, text=True)
            assert done.returncode == 0, f"{name}: {text}\n{done.stderr}"
    results = {path.name for path in (home / "results").iterdir()}
    assert results == {"first", "mlp", "track", "vectors", "batch", "new"}
    assert (home / "comparison.md").read_text().count("| vae |") == 3


@pytest.mark.slow
def test_the_examples_of_the_api_say_what_they_give(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    demo.synthesise("data/demo", num_tracks=96, duration=1.0, sample_rate=8000)
    audio_files.write_music(tmp_path / "new.mp3")
    train = vae_jax.train
    small = SMALL | {"baselines": ("pca",), "model.latent_dim": 8}
    monkeypatch.setattr(vae_jax, "train", lambda *given: train(*given, small), raising=False)
    [example] = doctest.DocTestFinder(recurse=False).find(api)
    said: list[str] = []
    failed, attempted = doctest.DocTestRunner().run(example, out=said.append)
    assert (failed, attempted) == (0, 9), "".join(said)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_names_only_commands_configs_and_keys_that_there_are(path):
    text = path.read_text()
    commands = re.findall(r"^(?:vae-jax|   vae-jax) ([a-z]+)|`vae-jax ([a-z]+)[ `]", text, re.M)
    assert {a or b for a, b in commands} <= {*COMMANDS}
    configs = re.findall(r"--config=(\w+)(?:[ :`]|$)", text, re.MULTILINE)
    assert set(configs) <= {*presets.names()}
    keys = re.findall(r"--config\.([a-z][\w.]*\w)", text)
    assert {key for key in keys if key != "KEY"} <= {*KEYS}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_files_that_a_page_links_to_are_there(path):
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_every_tutorial_is_run():
    index = (ROOT / "docs" / "index.rst").read_text()
    listed = re.findall(r"^   (\w+)$", index.split("Reference")[0], re.MULTILINE)
    assert tuple(listed) == TUTORIALS
    assert all(len(blocks((ROOT / "docs" / f"{name}.rst").read_text())) >= 4 for name in TUTORIALS)
