import shutil

import pytest

from vae_jax.config import get_config
from vae_jax.errors import UserError
from vae_jax.stages import runner
from vae_jax.storage import files


def test_a_collection_that_cannot_be_read_has_every_reason_in_failed_csv(
    collection, tmp_path, monkeypatch, in_process
):
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(collection.parent / "audio")
    config = get_config()
    config.manifest = str(collection)
    with pytest.raises(UserError, match=r"none of the 12 tracks .*results/failed.csv lists them"):
        runner.run(config, tmp_path / "results", ["features"], None)
    rows = files.read_csv(tmp_path / "results" / "failed.csv")
    assert [row["id"] for row in rows] == [f"track-{i}" for i in range(12)]
    assert all(row["reason"] for row in rows)
