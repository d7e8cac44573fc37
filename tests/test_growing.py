"""A run on a collection that has grown since the run before."""

import shutil

import numpy as np
import pytest

import vae_jax
from tests.conftest import write_collection
from tests.test_api import SETTINGS
from vae_jax import history, report, run
from vae_jax.errors import UserError
from vae_jax.stages import runner
from vae_jax.storage import files

pytestmark = pytest.mark.slow

GROWN = SETTINGS | {"manifest": "music/metadata.csv", "model.prior": "mixture"}
GROWN |= {"model.num_components": 3, "cluster.num_seeds": 1}


def grow(folder, rows):
    """List so many of the tracks."""
    everything = files.read_csv(folder / "music" / "all.csv")
    files.write_csv(folder / "music" / "metadata.csv", list(everything[0]), everything[:rows])


def train(outdir="results/living", **settings):
    return vae_jax.train("mlp", outdir, GROWN | settings)


def contents(outdir):
    names = ("clusters.csv", "latents.npz", "latent_visualization/vae_pca.csv")
    paths = [outdir / name for name in names]
    return [path.read_bytes() if path.exists() else None for path in paths]


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A project whose run has seen 24 tracks, and then 30."""
    folder = tmp_path_factory.mktemp("living")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_collection(folder / "music", 30)
        shutil.copy(folder / "music" / "metadata.csv", folder / "music" / "all.csv")
        grow(folder, 24)
        train()
        files.write_csv(
            folder / "results" / "living" / "cluster_names.csv",
            ("id", "name"),
            [{"id": "1", "name": "hiss"}],
        )
        shutil.copytree(folder / "results", folder / "before")
        grow(folder, 30)
        train()
    return folder


@pytest.fixture
def project(grown, tmp_path, monkeypatch):
    shutil.copytree(grown, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def test_what_was_there_is_kept_and_clusters_keep_their_numbers(project):
    outdir = project / "results" / "living"
    kept, before = outdir / "history" / "001", project / "before" / "living"
    assert (kept / "clusters.csv").read_bytes() == (before / "clusters.csv").read_bytes()
    then, now = vae_jax.load(before), vae_jax.load(outdir)
    clusters = dict(zip(now.ids, now.clusters.tolist(), strict=True))
    same = [clusters[id_] == old for id_, old in zip(then.ids, then.clusters, strict=True)]
    assert np.mean(same) >= 0.9
    assert np.array_equal(now.assign(now.latents), now.clusters)


def test_training_goes_on_from_the_model_before_unless_from_scratch(project):
    described = vae_jax.load("results/living").made_with
    assert described["starts"]["vae"] in {
        vae_jax.load("before/living").made_with["checkpoints"]["vae"]["directory"]
    }
    scratch = train("results/fresh").latents
    assert not np.array_equal(scratch, vae_jax.load("results/living").latents)
    named = train("results/named", **{"train.start_from": "results/fresh"}).latents
    assert not np.array_equal(scratch, named)
    assert np.array_equal(train(**{"train.start_from": "scratch"}).latents, scratch)


def test_a_run_in_a_new_folder_has_no_history(project):
    fresh = train("results/fresh")
    assert fresh.made_with["previous"] is None
    assert not (project / "results" / "fresh" / "history").exists()
    assert set(fresh.clusters) == {0, 1, 2}
    assert "vae_ids" not in files.read_npz(project / "results" / "fresh" / "cluster_centers.npz")


@pytest.mark.parametrize("last", ["features", "train", "cluster"])
def test_a_run_that_is_killed_after_a_stage_gives_the_same(project, last):
    expected = contents(project / "results" / "living")
    outdir = project / "results" / "again"
    shutil.copytree(project / "before" / "living", outdir)
    settings = vae_jax.load(outdir).config.copy_and_resolve_references()
    names = runner.STAGES[: runner.STAGES.index(last) + 1]
    runner.run_stages(settings, outdir, names, None)
    assert contents(outdir) != expected
    train(outdir)
    assert contents(outdir) == expected
    train(outdir)
    assert contents(outdir) == expected
    assert [path.name for path in (outdir / "history").iterdir()] == ["001"]


def test_names_given_by_a_person_are_kept_and_shown(project):
    results = vae_jax.load("results/living")
    assert results.cluster_names == {1: "hiss"}
    said = report.report(run.Run(results.config, results.outdir))
    assert "cluster 1 hiss: " in said
    assert "of 24 tracks kept their cluster since results/living/history/001; 6 are new" in said


def test_numbers_of_clusters_that_are_gone_are_not_used_again(project):
    outdir = project / "results" / "living"
    assert history.next_ids(outdir / "history" / "001")["cluster"] == 3
    more = train(**{"cluster.num_clusters": 4})
    assert set(more.clusters) > {3}
    grow(project, 29)
    fewer = train(**{"cluster.num_clusters": 2})
    gone = set(more.clusters) - set(fewer.clusters)
    grow(project, 30)
    again = train(**{"cluster.num_clusters": 5})
    assert not gone & set(again.clusters)


def test_another_collection_in_the_same_folder_starts_anew(project):
    rows = files.read_csv(project / "music" / "all.csv")
    others = [row | {"id": f"other {row['id']}"} for row in rows]
    files.write_csv(project / "music" / "metadata.csv", list(rows[0]), others)
    results = train()
    assert results.made_with["previous"] is None
    assert set(results.clusters) == {0, 1, 2}


def test_a_model_that_does_not_fit_is_left_or_refused(project):
    grow(project, 28)
    results = train(**{"model.latent_dim": 2})
    assert results.made_with["starts"] == {}
    with pytest.raises(UserError, match="latent_dim is 3 now and was 2"):
        train("results/other", **{"train.start_from": "results/living"})
