"""Checkpoints of every version are restored, or refused in a sentence before any work."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import vae_jax
from tests.conftest import write_collection
from vae_jax import config as config_lib
from vae_jax import main
from vae_jax.errors import UserError
from vae_jax.stages import runner
from vae_jax.storage import files
from vae_jax.training import checkpoints

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("checkpoint-*"))


@pytest.fixture
def directory(tmp_path):
    """Return a copy of the checkpoint that the latest version wrote, beside a collection."""
    write_collection(tmp_path / "music", 12)
    return Path(shutil.copytree(FIXTURES[-1], tmp_path / "model"))


def change(directory, edit):
    """Change what a checkpoint says of itself, as another version would have written it."""
    step = checkpoints.best_step(directory)
    path = directory / str(step) / "metadata" / "metadata"
    metadata = json.loads(path.read_bytes())
    edit(metadata)
    path.write_text(json.dumps(metadata))
    hashes = checkpoints._hashes(directory, step)
    files.write_sealed_json(directory / f"sha256-{step}.json", hashes)


def run(directory, monkeypatch):
    """Start `run --checkpoint` in the folder of the collection."""
    monkeypatch.chdir(directory.parent)
    metadata = checkpoints.read_metadata(directory, checkpoints.best_step(directory))
    config = config_lib.from_elsewhere(metadata["config"])
    config.manifest = "music/metadata.csv"
    config_lib.validate(config)
    runner.run_stages(config, Path("results"), ["features", "embed"], directory)
    return files.read_npz("results/latents.npz")["latents"]


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.name)
def test_a_checkpoint_of_every_version_gives_tracks_the_latents_that_it_gave_then(
    fixture, tmp_path
):
    collection = write_collection(tmp_path, 12)
    expected = files.read_npz(fixture / "expected.npz")
    encoded = vae_jax.Model.load(fixture).encode(
        [collection.parent / "audio" / f"{i}.wav" for i in range(12)]
    )
    np.testing.assert_allclose(encoded.mean, expected["latents"], atol=1e-3)


def drop(section, key):
    return lambda metadata: metadata["config"][section].pop(key)


def put(section, key, value):
    return lambda metadata: metadata["config"][section].update({key: value})


@pytest.mark.parametrize("key", ["beta", "dtype", "kernel_size", "contrast"])
def test_a_key_that_an_early_version_did_not_have_is_at_its_default(directory, monkeypatch, key):
    change(directory, drop("model", key))
    expected = files.read_npz(directory / "expected.npz")["latents"]
    np.testing.assert_allclose(run(directory, monkeypatch), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (drop("model", "prior"), "['prior']"),
        (put("model", "latent_dim", 4), "expected"),
        (put("model", "hidden_dims", [9]), "expected"),
        (put("model", "latent_dim", "three"), "config.model.latent_dim is 'three'"),
        (put("model", "latent_dims", 3), "config.model.latent_dims is not a key of this version"),
        (lambda metadata: metadata.pop("statistics"), "'statistics'"),
        (lambda metadata: metadata.update(arrays=[]), "has no attribute 'items'"),
        (lambda metadata: metadata.update(whitening="x"), "TypeError"),
        (lambda metadata: metadata.pop("config"), "describes no model"),
    ],
)
def test_a_model_that_this_version_does_not_know_is_refused_before_any_work(
    directory, monkeypatch, edit, said
):
    change(directory, edit)
    with pytest.raises(UserError) as error:
        run(directory, monkeypatch)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in directory.parent.iterdir()) == ["model", "music"]


@pytest.mark.parametrize("place", ["/elsewhere", "s3://bucket/elsewhere"])
def test_places_inside_a_checkpoint_are_not_followed(directory, monkeypatch, place):
    def move(metadata):
        metadata["config"] |= dict.fromkeys(config_lib.PLACES, place)

    change(directory, move)
    parsed = main.flags.FlagValues()
    monkeypatch.setattr(main.flags, "FLAGS", parsed)
    defined = []
    monkeypatch.setattr(
        main.config_flags, "DEFINE_config_dict", lambda name, config: defined.append(config)
    )
    main._define_config(["run", f"--checkpoint={directory}"])
    (config,) = defined
    assert (config.manifest, config.data_dir, config.checkpoint_dir) == (
        *(None, "data", "checkpoints"),
    )
