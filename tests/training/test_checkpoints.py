import sys

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from vae_jax.errors import UserError
from vae_jax.training import checkpoints


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


@pytest.mark.parametrize("damage", ["flip", "delete", "add", "unsealed", "seal"])
def test_every_kind_of_damage_is_noticed(tmp_path, damage):
    save(tmp_path, [1.0])
    folder, seal = tmp_path / "10", tmp_path / "sha256-10.json"
    {
        "flip": lambda: flip_a_bit(tmp_path, 10),
        "delete": (folder / "metadata" / "metadata").unlink,
        "add": (folder / "state" / "more").touch,
        "unsealed": seal.unlink,
        "seal": lambda: seal.write_bytes(b"{"),
    }[damage]()
    assert checkpoints.damage(tmp_path, 10)
    with pytest.raises(UserError, match="no sound checkpoint"):
        checkpoints.best_step(tmp_path)


def test_the_latest_sound_state_is_restored_and_the_damaged_one_removed(tmp_path):
    save(tmp_path, [1.0, 2.0])
    flip_a_bit(tmp_path, 20)
    manager = checkpoints.Checkpoints(tmp_path)
    abstract = {"params": {"w": jnp.zeros(3)}, "step": jnp.array(0)}
    step, state = manager.restore_latest(abstract)
    manager.close()
    assert (step, int(state["step"])) == (10, 10)
    assert checkpoints.steps_in(tmp_path) == [10]


def test_a_folder_without_checkpoints_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no sound checkpoint"):
        checkpoints.best_step(tmp_path / "missing")
