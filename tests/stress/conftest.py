"""A finished run that the stress tests compare with, and copy to break."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import write_collection
from tests.stress import jobs


@pytest.fixture(scope="session")
def music(tmp_path_factory) -> Path:
    """A collection of five shards."""
    folder = tmp_path_factory.mktemp("collection")
    write_collection(folder / "music", 18)
    return folder / "music"


@pytest.fixture(scope="session")
def fresh(music, tmp_path_factory) -> Callable[[], Path]:
    """Return a function that makes folders with nothing but the collection."""

    def make() -> Path:
        folder = tmp_path_factory.mktemp("fresh")
        shutil.copytree(music, folder / "music")
        return folder

    return make


@pytest.fixture(scope="session")
def pristine(fresh, tmp_path_factory) -> tuple[Path, Path]:
    """A folder in which the main job has run undisturbed, and a copy of it that stays so."""
    folder, copy = fresh(), tmp_path_factory.mktemp("pristine") / "copy"
    ended = jobs.run(folder)
    assert ended.code == 0, ended.err
    assert jobs.temporary_files(folder) == []
    shutil.copytree(folder, copy)
    return folder, copy


@pytest.fixture
def finished(pristine) -> Path:
    """The folder of the undisturbed run, as it was left; tests may break it."""
    folder, copy = pristine
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    return folder


@pytest.fixture(scope="session")
def undisturbed(pristine) -> dict:
    """What the undisturbed run computed."""
    return jobs.outcome(pristine[1])
