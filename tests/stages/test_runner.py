"""The order of the stages, in one process."""

import json
import shutil

import pytest

import vae_jax
from tests.conftest import write_collection
from vae_jax.storage import files
from vae_jax.training import checkpoints

SETTINGS = {
    "manifest": "music/metadata.csv",
    "feature.sample_rate": 8000,
    "feature.duration": 1.0,
    "feature.num_workers": 1,
    "model.latent_dim": 2,
    "model.hidden_dims": (8,),
    "train.num_steps": 60,
    "train.batch_size": 8,
    "train.checkpoint_every": 30,
    "baselines": (),
    "cluster.num_clusters": 2,
    "cluster.num_seeds": 1,
    "visualize.method": "pca",
    "visualize.color_by": (),
}


@pytest.mark.slow
def test_a_folder_may_have_a_name_that_is_no_text(tmp_path, monkeypatch):
    folder = tmp_path / "caf\udce9 [2024]"
    write_collection(tmp_path / "music", 15)
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("the file system takes text alone as names")
    shutil.move(tmp_path / "music", folder)
    monkeypatch.chdir(folder)
    manifest = str(folder / "music" / "metadata.csv")
    vae_jax.train("mlp", folder / "results", SETTINGS | {"manifest": manifest})
    written = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    results = vae_jax.train("mlp", "results", SETTINGS | {"manifest": manifest})
    assert {path: path.read_bytes() for path in written} == written
    assert vae_jax.Model.load(results.outdir).encode([folder / "music" / "audio" / "0.wav"]).ids
    assert results.explore().path.exists()


def test_a_run_killed_in_training_is_continued_and_the_last_model_is_embedded(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_collection(tmp_path / "music", 15)
    vae_jax.train("mlp", "undisturbed", SETTINGS)
    expected = files.read_npz(tmp_path / "undisturbed" / "latents.npz")["latents"]
    (directory,) = (tmp_path / "checkpoints").iterdir()
    for num_left in (1, 0):
        for step in checkpoints.steps_in(directory)[num_left:]:
            shutil.rmtree(directory / str(step))
            (directory / f"sha256-{step}.json").unlink()
        (directory / checkpoints.COMPLETE).unlink()
        outdir = tmp_path / f"killed-{num_left}"
        vae_jax.train("mlp", outdir, SETTINGS)
        assert files.read_npz(outdir / "latents.npz")["latents"].tobytes() == expected.tobytes()
        described = json.loads((outdir / "run.json").read_text())
        assert described["checkpoints"]["vae"]["step"] == 60
