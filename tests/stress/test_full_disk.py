"""A full or read-only disk ends in one sentence; with room again, the same command continues."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stress import jobs
from tests.stress.jobs import LONG, long_only, outcome, run, stress_only
from tests.stress.test_kills import assert_ends_undisturbed

pytestmark = stress_only


@pytest.mark.parametrize("kib", [1, 2, 3, 5, 8, 16, 24, 32, 48, 64] if LONG else [8])
def test_files_that_may_not_grow_end_the_run_in_one_sentence(fresh, undisturbed, kib, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")  # whose files would be cut short as well
    folder = fresh()
    ended = run(folder, kib=kib)
    print(kib, ended.stages, ended.err.splitlines()[-1:])
    assert ended.code == 0 or ended.is_one_sentence, ended.err
    assert jobs.temporary_files(folder / "results") == []
    monkeypatch.undo()
    assert_ends_undisturbed(folder, undisturbed)


@pytest.fixture
def disk(fresh, tmp_path) -> Iterator[Path]:
    """A folder on a small disk of its own, with the collection elsewhere."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes a privileged user")
    try:
        os.symlink(fresh() / "music", folder / "music")
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@long_only
@pytest.mark.parametrize("first", [16, 20, 24, 28])
def test_a_disk_that_fills_up_again_and_again_costs_nothing(disk, undisturbed, first):
    size, fulls = first, 0
    while True:
        remount(disk, f"size={size}k")
        ended = run(disk)
        print(f"{size} KiB:", *ended.err.splitlines()[-1:])
        if ended.code == 0:
            break
        assert ended.is_one_sentence, ended.err
        if "cannot write a checkpoint" in ended.err:
            assert list(disk.glob("checkpoints/*/*orbax-checkpoint-tmp")) == []
        fulls += 1
        size = size * 5 // 4
    assert fulls > 5
    assert outcome(disk) == undisturbed
    remount(disk, "size=64m")
    assert_ends_undisturbed(disk, undisturbed)


@pytest.mark.parametrize("after", [None, "features", "train", "embed"] if LONG else [None])
def test_a_read_only_disk_ends_the_run_in_one_sentence(disk, undisturbed, after):
    remount(disk, "size=64m")
    if after:
        assert run(disk, f"--stage={after}" if after == "features" else "--stage=all").code == 0
    if after == "train":
        next(disk.glob("checkpoints/*/complete.json")).unlink()
    elif after == "embed":
        (disk / "results" / "latents.npz").unlink()
    remount(disk, "ro")
    ended = run(disk)
    assert ended.is_one_sentence, ended.err
    remount(disk, "rw")
    assert_ends_undisturbed(disk, undisturbed)


@pytest.mark.parametrize("name", ["data", "checkpoints", "results"] if LONG else ["checkpoints"])
def test_a_file_where_a_folder_should_be_is_named(fresh, undisturbed, name):
    folder = fresh()
    (folder / name).write_text("mine")
    ended = run(folder)
    assert ended.is_one_sentence, ended.err
    assert name in ended.err.splitlines()[-1]
    assert (folder / name).read_text() == "mine"
    (folder / name).unlink()
    assert_ends_undisturbed(folder, undisturbed)
