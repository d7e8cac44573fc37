"""A run that is bound to fail is refused before it writes anything."""

import os
import shutil
from types import SimpleNamespace

import pytest

from vae_jax import config as config_lib
from vae_jax import preflight
from vae_jax.errors import UserError
from vae_jax.records import layout
from vae_jax.run import Run
from vae_jax.stages import runner
from vae_jax.storage import files
from vae_jax.training import checkpoints


@pytest.fixture
def config(collection, tmp_path):
    """Return a valid config for twelve tracks with the columns audio_path and label."""
    config = config_lib.get_config()
    config.manifest = str(collection)
    config.data_dir, config.checkpoint_dir = str(tmp_path / "data"), str(tmp_path / "checkpoints")
    return config


def refusal(config, outdir, stages=runner.STAGES, checkpoint=None):
    """Return why the runner refuses a run, having checked that it left nothing behind."""
    before = sorted(outdir.parent.rglob("*"))
    config_lib.validate(config)
    with pytest.raises(UserError) as error:
        runner.run_stages(config, outdir, stages, checkpoint)
    assert sorted(outdir.parent.rglob("*")) == before
    return str(error.value)


def accept(config, outdir, stages=runner.STAGES, checkpoint=None):
    config_lib.validate(config)
    preflight.check(Run(config, outdir, checkpoint), stages)


def test_a_sound_run_is_accepted(config, tmp_path):
    accept(config, tmp_path / "out")


def test_a_run_without_a_manifest_is_told_how_to_name_one(config, tmp_path):
    config.manifest = None
    assert "--config.manifest=PATH" in refusal(config, tmp_path / "out")


def test_a_missing_manifest_leaves_no_folder_behind(config, tmp_path):
    config.manifest = str(tmp_path / "nothing.csv")
    assert "nothing.csv" in refusal(config, tmp_path / "out")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "condition", "gener"),
        ("cluster", "label", "labels"),
        ("visualize", "color_by", ("label", "labels")),
    ],
)
def test_a_column_that_does_not_exist_is_refused_with_those_that_do(
    config, tmp_path, section, key, value
):
    config[section][key] = value
    said = refusal(config, tmp_path / "out")
    assert f"config.{section}.{key} names the column" in said
    assert "'id', 'audio_path', 'label'" in said
    if "labels" in value:
        assert "did you mean 'label'?" in said


def test_columns_that_nobody_asked_for_may_be_missing(config, tmp_path):
    rows = [{"id": row["id"], "audio_path": "a.wav"} for row in files.read_csv(config.manifest)]
    files.write_csv(config.manifest, ("id", "audio_path"), rows)
    accept(config, tmp_path / "out")


def test_no_label_and_no_colours_can_be_asked_for(config, tmp_path):
    config.cluster.label, config.visualize.color_by = "", ()
    accept(config, tmp_path / "out")


def test_columns_are_only_needed_by_the_stages_that_read_them(config, tmp_path):
    config.cluster.label, config.visualize.color_by = "mood", ("mood",)
    accept(config, tmp_path / "out", ["features", "train", "embed"])
    assert "config.cluster.label" in refusal(config, tmp_path / "out", ["cluster"])
    assert "config.visualize.color_by" in refusal(config, tmp_path / "out", ["visualize"])


def test_a_condition_without_a_single_value_is_refused(config, tmp_path):
    rows = [row | {"genre": ""} for row in files.read_csv(config.manifest)]
    files.write_csv(config.manifest, ("id", "audio_path", "label", "genre"), rows)
    config.model.condition = "genre"
    assert "empty in every row" in refusal(config, tmp_path / "out")


@pytest.mark.parametrize(
    ("feature", "model", "column"),
    [("mfcc", "mlp", "audio_path"), ("lyrics_tfidf", "mlp", "lyrics")],
)
def test_a_manifest_without_the_column_that_features_are_made_from_is_refused(
    config, tmp_path, feature, model, column
):
    files.write_csv(config.manifest, ("id", "label"), [{"id": "a"}, {"id": "b"}])
    config.feature.name, config.model.name = feature, model
    said = refusal(config, tmp_path / "out")
    assert f"has no column {column!r}, which config.feature.name={feature} needs" in said


def test_either_audio_or_lyrics_do_for_a_hybrid(config, tmp_path):
    config.feature.name = "hybrid"
    accept(config, tmp_path / "out")
    files.write_csv(config.manifest, ("id",), [{"id": "a"}])
    assert "has no column 'audio_path'" in refusal(config, tmp_path / "out")


def test_a_column_in_capitals_that_is_passed_over_is_named(config, tmp_path, caplog):
    rows = [row | {"Artist": "x"} for row in files.read_csv(config.manifest)]
    files.write_csv(config.manifest, ("id", "audio_path", "label", "Artist"), rows)
    with caplog.at_level("WARNING"):
        accept(config, tmp_path / "out")
    assert "rename it to 'artist'" in caplog.text


def test_more_clusters_than_tracks_are_refused(config, tmp_path):
    config.cluster.num_clusters = 13
    assert "more than the number of tracks (12)" in refusal(config, tmp_path / "out")
    accept(config, tmp_path / "out", ["features", "train", "embed"])
    config.cluster.method = "dbscan"  # which finds the number itself
    accept(config, tmp_path / "out")
    config.cluster.update(method="kmeans", num_clusters="auto")
    accept(config, tmp_path / "out")


def test_more_tracks_than_a_clusterer_takes_are_refused(config, tmp_path):
    rows = [{"id": f"t{i}", "audio_path": "a.wav"} for i in range(20_001)]
    files.write_csv(config.manifest, ("id", "audio_path"), rows)
    config.cluster.method = "agglomerative"
    said = refusal(config, tmp_path / "out")
    assert "config.cluster.method=agglomerative is limited to" in said
    assert "there are 20,001" in said


@pytest.mark.parametrize("key", ["outdir", "data_dir", "checkpoint_dir"])
def test_an_output_folder_that_is_a_file_is_refused(config, tmp_path, key):
    (tmp_path / "file").write_text("mine")
    folder = tmp_path / "file" / "inside"
    if key != "outdir":
        config[key] = str(folder)
    with pytest.raises(UserError, match=rf"{key}: .*file is a file, not a folder"):
        accept(config, folder if key == "outdir" else tmp_path / "out")


@pytest.mark.parametrize("key", ["outdir", "data_dir", "checkpoint_dir"])
def test_an_output_folder_that_is_a_link_to_nothing_is_refused(config, tmp_path, key):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    if key != "outdir":
        config[key] = str(tmp_path / "link")
    with pytest.raises(UserError, match=rf"{key}: .*link is a link to .*gone, which is not there"):
        accept(config, tmp_path / ("link" if key == "outdir" else "out"))


@pytest.mark.parametrize("key", ["outdir", "data_dir", "checkpoint_dir"])
def test_an_output_folder_that_may_not_be_written_is_refused(config, tmp_path, monkeypatch, key):
    (tmp_path / "locked").mkdir(mode=0o555)
    if os.access(tmp_path / "locked", os.W_OK):  # root may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "locked")
    folder = tmp_path / "locked" / "inside"
    if key != "outdir":
        config[key] = str(folder)
    with pytest.raises(UserError, match=rf"{key}: cannot write into .*locked"):
        accept(config, folder if key == "outdir" else tmp_path / "out")


def test_a_full_disk_is_refused_and_one_that_may_fill_is_named(
    config, tmp_path, monkeypatch, caplog
):
    usage = SimpleNamespace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "is full; make room" in refusal(config, tmp_path / "out")
    usage.free = 100 * 2**20
    accept(config, tmp_path / "out")
    assert "may take up to" not in caplog.text
    config.feature.update(name="logmelspec", duration=36000.0)
    config.model.name = "conv2d"
    accept(config, tmp_path / "out")
    assert "features of 12 tracks may take up to 4.4 GiB, but 0.1 GiB are free" in caplog.text


def test_checkpoints_that_could_not_be_read_again_are_refused_before_training(
    config, tmp_path, monkeypatch
):
    config.checkpoint_dir = str(tmp_path / "[2024]")
    accept(config, tmp_path / "out")
    monkeypatch.setattr(preflight.processes, "is_alone", lambda: False)
    assert "whose name has the character '['" in refusal(config, tmp_path / "out")


def test_results_do_not_go_where_records_or_checkpoints_are(config, tmp_path):
    records = Run(config, tmp_path).records_dir
    with pytest.raises(UserError, match="is a folder of feature records"):
        accept(config, records)
    other, steps = tmp_path / "other", tmp_path / "steps"
    files.write_npz(other / layout.INDEX)
    with pytest.raises(UserError, match="is a folder of feature records"):
        accept(config, other)
    files.write_json(steps / "sha256-5.json", {})
    with pytest.raises(UserError, match="is a folder of checkpoints"):
        accept(config, steps)
    config.data_dir = config.checkpoint_dir = str(tmp_path / "all")
    accept(config, tmp_path / "all")


@pytest.fixture
def checkpoint(config, tmp_path, monkeypatch):
    """Return a checkpoint's folder; what it was trained with is `config` as it was here."""
    values = config_lib.to_dict(config)
    values["feature"] = config_lib.training_settings(values["feature"])
    monkeypatch.setattr(checkpoints, "best_step", lambda directory: 7)
    monkeypatch.setattr(preflight, "_check_model", lambda directory: None)
    metadata = {"config": values, "lyrics": None}
    monkeypatch.setattr(checkpoints, "read_metadata", lambda directory, step: metadata)
    return tmp_path / "model"


def test_a_checkpoint_of_another_config_is_refused_and_the_keys_that_differ_are_named(
    config, tmp_path, checkpoint
):
    config.feature.n_mfcc, config.model.latent_dim, config.model.hidden_dims = 13, 8, (4,)
    said = refusal(config, tmp_path / "out", checkpoint=checkpoint)
    assert "config.feature.n_mfcc is 13 here and 20 there" in said
    assert "config.model.latent_dim is 8 here and 16 there" in said
    assert "config.model.hidden_dims is (4,) here and (256, 128) there" in said
    assert "ArraySpec" not in said


def test_a_checkpoint_may_see_other_parts_of_tracks_and_be_clustered_otherwise(
    config, tmp_path, checkpoint
):
    config.feature.update(duration=10.0, excerpt="spread", num_windows=4, shard_size=8)
    config.cluster.num_clusters, config.train.num_steps, config.seed = 3, 5, 4
    accept(config, tmp_path / "out", checkpoint=checkpoint)


def test_columns_that_a_checkpoints_config_names_may_be_missing_from_new_tracks(
    config, tmp_path, monkeypatch
):
    config.cluster.label, config.visualize.color_by = "mood", ("mood",)
    metadata = {"config": config_lib.to_dict(config), "lyrics": None}
    monkeypatch.setattr(checkpoints, "best_step", lambda directory: 7)
    monkeypatch.setattr(preflight, "_check_model", lambda directory: None)
    monkeypatch.setattr(checkpoints, "read_metadata", lambda directory, step: metadata)
    accept(config, tmp_path / "out", checkpoint=tmp_path / "model")
    config.cluster.label = "tempo"
    said = refusal(config, tmp_path / "out", checkpoint=tmp_path / "model")
    assert "names the column 'tempo'" in said


def test_vectors_of_another_model_need_no_column_but_the_id(config, tmp_path):
    config.feature.update(name="embedding", embedding="clap.npz")
    files.write_csv(config.manifest, ("id",), [{"id": f"track-{i}"} for i in range(12)])
    accept(config, tmp_path / "out")
