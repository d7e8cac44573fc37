"""Hints name only what exists."""

import re
from pathlib import Path

from vae_jax import extras

ROOT = Path(__file__).parents[1]


def test_an_extra_is_installed_from_the_clone():
    assert extras.command("beam") == f"pip install '{ROOT}[beam]'"


def test_an_installed_package_names_what_the_extra_needs(tmp_path, monkeypatch):
    lines = ["absl-py>=2.1", 'apache-beam>=2.77; extra == "beam"', 'moto; extra == "test"']
    monkeypatch.setattr(extras.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "vae_jax" / "extras.py"))
    assert extras.command("beam") == "pip install 'apache-beam>=2.77'"


def test_nothing_tells_to_install_a_package_of_our_name_from_an_index():
    texts = [*ROOT.glob("vae_jax/**/*.py"), *ROOT.glob("docs/*.rst"), ROOT / "README.md"]
    found = {path: re.findall(r"pip install ['\"]?vae.jax", path.read_text()) for path in texts}
    assert not any(found.values()), found
