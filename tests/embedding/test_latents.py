"""Shards of embeddings: which tracks, made from what, and whether they are whole."""

import numpy as np
import pytest

from vae_jax.embedding.latents import Latents, Shards
from vae_jax.errors import UserError
from vae_jax.storage import files

IDS = np.array([f"track {i}" for i in range(10)])
POINTS = np.arange(30, dtype=np.float32).reshape(10, 3)


@pytest.fixture
def shards(tmp_path):
    """Return three shards of ten tracks, all written."""
    shards = Shards(tmp_path / "latents", IDS, 4, "this")
    for shard in range(len(shards)):
        shards.write(shard, latents=POINTS[shards.positions(shard)])
    return shards


def finished(shards: Shards) -> list[bool]:
    return [shards.is_finished(shard) for shard in range(len(shards))]


def test_shards_hold_all_tracks_in_order_and_merge_into_one_file(shards, tmp_path):
    assert [len(shards.positions(shard)) for shard in range(len(shards))] == [4, 4, 2]
    assert shards.path(2).name == "latents-00002-of-00003.npz"
    assert finished(shards) == [True] * 3
    shards.merge(tmp_path / "latents.npz")
    files.write_npz(tmp_path / "whole.npz", ids=IDS, latents=POINTS)
    assert (tmp_path / "latents.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_a_shard_that_is_missing_damaged_or_of_something_else_is_not_finished(shards, tmp_path):
    content = bytearray(shards.path(0).read_bytes())
    content[content.index(POINTS[1].tobytes())] ^= 1
    shards.path(0).write_bytes(content)
    shards.path(1).unlink()
    assert finished(shards) == [False, False, True]
    assert not Shards(shards.folder, IDS, 4, "that").is_finished(2)
    assert not Shards(shards.folder, IDS[::-1], 4, "this").is_finished(2)


def test_removing_takes_shards_of_any_number_but_nothing_else(shards):
    (shards.folder / "notes.txt").touch()
    Shards(shards.folder, IDS, 3, "this").remove()
    assert [path.name for path in shards.folder.iterdir()] == ["notes.txt"]


def test_a_folder_of_shards_reads_as_one_file_does(shards, tmp_path):
    shards.merge(tmp_path / "latents.npz")
    one, many = Latents(tmp_path / "latents.npz"), Latents(shards.folder)
    assert (one.is_sharded, many.is_sharded) == (False, True)
    for latents in (one, many):
        assert (latents.ids.tolist(), latents.dim, len(latents)) == (IDS.tolist(), 3, 10)
        np.testing.assert_array_equal(np.concatenate([*latents.chunks()]), POINTS)


def test_of_shards_a_sample_is_held_and_of_a_file_all(shards, tmp_path):
    positions, points = Latents(shards.folder).held(6, seed=1)
    assert len({*positions.tolist()}) == 6
    np.testing.assert_array_equal(points, POINTS[positions])
    np.testing.assert_array_equal(Latents(shards.folder).held(10, seed=1)[1], POINTS)
    shards.merge(tmp_path / "latents.npz")
    np.testing.assert_array_equal(Latents(tmp_path / "latents.npz").held(6, seed=1)[1], POINTS)


def test_a_folder_that_lacks_shards_is_refused(shards):
    shards.path(1).unlink()
    with pytest.raises(UserError, match="holds 2 of 3 shards"):
        Latents(shards.folder)
    shards.remove()
    with pytest.raises(UserError, match="does not exist"):
        Latents(shards.folder)
