import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from vae_jax.errors import UserError
from vae_jax.training import checkpoints, literal_paths


def save(directory, losses, first=10):
    """Save a checkpoint per loss, at steps 10, 20, ..."""
    manager = checkpoints.Checkpoints(directory)
    for i, loss in enumerate(losses, start=first // 10):
        state = {"params": {"w": jnp.full((3,), i, jnp.float32)}, "step": jnp.array(10 * i)}
        manager.save(10 * i, state, {"config": {"x": [1, 2]}}, {checkpoints.BEST_METRIC: loss})
    manager.close()


def flip_a_bit(directory, step):
    path = max(
        (path for path in (directory / str(step)).rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_the_latest_two_and_the_best_checkpoints_are_kept_with_their_seals(tmp_path):
    save(tmp_path, [3.0, 1.0, 2.0, 4.0, 5.0])
    assert checkpoints.steps_in(tmp_path) == [20, 40, 50]
    save(tmp_path, [6.0], first=60)  # by another process, as it were
    assert checkpoints.steps_in(tmp_path) == [20, 50, 60]
    assert checkpoints.best_step(tmp_path) == 20
    seals = {path.name for path in tmp_path.glob("sha256-*.json")}
    assert seals == {"sha256-20.json", "sha256-50.json", "sha256-60.json"}


def test_parameters_and_metadata_are_restored_from_a_step_alone(tmp_path):
    save(tmp_path, [1.0, 2.0])
    params = checkpoints.restore_params(tmp_path, 20)
    assert isinstance(params["w"], np.ndarray)
    assert params["w"].tolist() == [2, 2, 2]
    assert checkpoints.read_metadata(tmp_path, 20) == {"config": {"x": [1, 2]}}


def test_saying_where_arrays_go_leaves_nothing_in_memory(tmp_path):
    checkpoints.Checkpoints(tmp_path).close()
    base = {"driver": "file", "path": f'{tmp_path}/it\'s "Ø"\n√/', "file_io_sync": False}
    stored = {"driver": "ocdbt", "base": base, "config": {"max_inline_value_bytes": 100}}
    spec = tensorstore.KvStore.Spec(stored)
    assert spec.to_json() == stored
    before = sys.getallocatedblocks()
    for _ in range(1000):
        spec.to_json()
    assert sys.getallocatedblocks() < before + 1000  # it was ten times as many


def test_the_best_checkpoint_is_passed_over_when_it_is_damaged(tmp_path, caplog):
    save(tmp_path, [1.0, 3.0, 2.0])
    flip_a_bit(tmp_path, 10)
    assert checkpoints.best_step(tmp_path) == 30
    assert "10 is passed over" in caplog.text


@pytest.mark.parametrize("damage", ["flip", "delete", "unsealed", "seal"])
def test_every_kind_of_damage_is_noticed(tmp_path, damage):
    save(tmp_path, [1.0])
    folder, seal = tmp_path / "10", tmp_path / "sha256-10.json"
    {
        "flip": lambda: flip_a_bit(tmp_path, 10),
        "delete": (folder / "metadata" / "metadata").unlink,
        "unsealed": seal.unlink,
        "seal": lambda: seal.write_bytes(b"{"),
    }[damage]()
    assert checkpoints.damage(tmp_path, 10)
    with pytest.raises(UserError, match="no sound checkpoint"):
        checkpoints.best_step(tmp_path)


@pytest.mark.parametrize("name", ["10/metadata/metadata", "10/state", "sha256-10.json"])
def test_what_cannot_be_read_is_neither_damaged_nor_moved(tmp_path, unprivileged, name):
    save(tmp_path, [1.0])
    before = sorted(tmp_path.rglob("*"))
    mode = (tmp_path / name).stat().st_mode
    (tmp_path / name).chmod(0)
    program = "import sys; from pathlib import Path; from vae_jax.training import checkpoints\n"
    program += "checkpoints.move_damaged(Path(sys.argv[1]))"
    command = [*unprivileged, sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    (tmp_path / name).chmod(mode)
    assert f"UserError: the checkpoint {tmp_path / '10'} cannot be read (Permission" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def restore_latest(directory):
    manager = checkpoints.Checkpoints(directory)
    step, state = manager.restore_latest({"params": {"w": jnp.zeros(3)}, "step": jnp.array(0)})
    manager.close()
    return step, state


def test_the_latest_sound_state_is_restored_and_the_damaged_one_moved_aside(tmp_path, caplog):
    save(tmp_path, [1.0, 2.0])
    for aside in ("20", "20-2"):
        flip_a_bit(tmp_path, 20)
        content = {path.name: path.read_bytes() for path in find_files(tmp_path / "20")}
        step, state = restore_latest(tmp_path)
        assert (step, int(state["step"])) == (10, 10)
        assert checkpoints.steps_in(tmp_path) == [10]
        moved = tmp_path / "damaged" / aside
        assert {path.name: path.read_bytes() for path in find_files(moved)} == content
        assert f"is moved to {moved}" in caplog.text
        save(tmp_path, [2.0], first=20)
    assert checkpoints.steps_in(tmp_path) == [10, 20]


def find_files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", ".nfs0001", "desktop.ini", "notes.txt"])
def test_files_of_others_in_a_folder_of_checkpoints_change_nothing(tmp_path, caplog, name):
    save(tmp_path, [1.0, 2.0])
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for folder in folders:
        (folder / name).write_bytes(b"stray")
    (tmp_path / "20 (copy)").mkdir()
    (tmp_path / "7").write_bytes(b"stray")
    assert checkpoints.best_step(tmp_path) == 10
    assert restore_latest(tmp_path)[0] == 20
    assert checkpoints.restore_params(tmp_path, 20)["w"].tolist() == [2, 2, 2]
    assert all((folder / name).exists() for folder in folders)
    assert not [line for line in caplog.records if line.levelname == "WARNING"]


def test_what_a_desktop_leaves_while_a_step_is_sealed_may_change(tmp_path, monkeypatch):
    restore = checkpoints._restore

    def leave(directory, step, *names):
        (directory / str(step) / ".DS_Store").write_bytes(b"1")
        return restore(directory, step, *names)

    monkeypatch.setattr(checkpoints, "_restore", leave)
    save(tmp_path, [1.0])
    (tmp_path / "10" / ".DS_Store").unlink()
    assert checkpoints.best_step(tmp_path) == 10


@pytest.mark.parametrize("name", ["a [2024]", "b\\c", "c*d?", "caf\udce9"])
def test_a_folder_of_any_name_keeps_checkpoints(tmp_path, name):
    for beside in ("c-d-", "a 2"):  # which a pattern would find
        (tmp_path / beside).mkdir()
    save(tmp_path / name, [1.0, 2.0])
    assert checkpoints.restore_params(tmp_path / name, 20)["w"].tolist() == [2, 2, 2]
    assert restore_latest(tmp_path / name)[0] == 20
    assert sorted(os.listdir(tmp_path)) == sorted([name, "c-d-", "a 2"])


def test_a_folder_that_could_be_written_but_not_read_is_refused(tmp_path, monkeypatch):
    literal_paths.check(tmp_path / "[2024]")
    with pytest.raises(UserError, match=r"the character '\[': choose another folder"):
        literal_paths.check(tmp_path / "[2024]", is_alone=False)
    monkeypatch.setattr(literal_paths, "_OPEN_FOLDERS", tmp_path / "missing")
    with pytest.raises(UserError, match=r"the character '\*'"), literal_paths.literal(Path("a*b")):
        pass


def test_a_step_that_cannot_be_read_back_is_never_sealed(tmp_path, monkeypatch):
    seal = checkpoints.Checkpoints._seal

    def damaged(self):
        for path in tmp_path.glob("*/state/ocdbt.process_0"):
            shutil.rmtree(path)
        for path in tmp_path.glob("*/state/d"):
            shutil.rmtree(path)
        seal(self)

    monkeypatch.setattr(checkpoints.Checkpoints, "_seal", damaged)
    with pytest.raises(UserError, match="cannot write a checkpoint into"):
        save(tmp_path, [1.0])
    assert not list(tmp_path.glob("sha256-*"))


def test_a_folder_without_checkpoints_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no sound checkpoint"):
        checkpoints.best_step(tmp_path / "missing")
