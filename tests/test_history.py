"""What is kept of a run's results when its tracks change, without training anything."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from vae_jax import history
from vae_jax.errors import UserError
from vae_jax.records import layout
from vae_jax.storage import files


@dataclass
class Records:
    content: str
    ids: np.ndarray


@dataclass
class Run:
    """What `history.follow` reads of a run."""

    outdir: Path
    records: Records

    @property
    def records_dir(self):
        return self.outdir / "records"


def run(outdir, content, ids):
    (outdir / "records").mkdir(exist_ok=True)
    (outdir / "records" / layout.INDEX).touch()
    return Run(outdir, Records(content, np.array(ids)))


def results(outdir, content, clusters, **others):
    """Write what a run leaves of tracks in these clusters."""
    rows = [{"id": id_, "cluster": cluster} for id_, cluster in clusters.items()]
    files.write_csv(outdir / "clusters.csv", ("id", "cluster"), rows)
    places = [{"id": id_, "x": 1, "y": 2.5} for id_ in clusters]
    files.write_csv(outdir / "latent_visualization" / "vae_umap.csv", ("id", "x", "y"), places)
    about = {"content": content, "clustered": True, "previous": None, "checkpoints": {}}
    files.write_json(outdir / "run.json", about | others)


def previous(outdir):
    return files.read_json(outdir / "run.json")["previous"]


def test_results_are_kept_once_when_the_tracks_change(tmp_path):
    results(tmp_path, "first", {"a": 0, "b": 1, "c": -1})
    before = (tmp_path / "run.json").read_bytes()
    history.follow(run(tmp_path, "first", ["a", "b", "c"]))
    assert (tmp_path / "run.json").read_bytes() == before
    for _ in range(2):
        history.follow(run(tmp_path, "second", ["a", "b", "c", "d"]))
        assert previous(tmp_path) == "history/001"
    kept = tmp_path / "history" / "001"
    assert history.clusters(kept, "") == {"a": 0, "b": 1, "c": -1}
    assert history.coordinates(kept, "vae_umap")["b"] == (1, 2.5)
    assert history.coordinates(kept, "pca_umap") == {}
    assert history.next_ids(kept) == {"cluster": 2}


def test_a_run_killed_while_it_keeps_results_keeps_them_once(tmp_path):
    results(tmp_path, "first", {"a": 0, "b": 1})
    before = (tmp_path / "run.json").read_bytes()
    for _ in range(2):
        (tmp_path / "run.json").write_bytes(before)
        history.follow(run(tmp_path, "second", ["a", "b", "c"]))
    assert [path.name for path in (tmp_path / "history").iterdir()] == ["001"]


def test_numbers_that_were_ever_used_are_remembered(tmp_path):
    results(tmp_path, "first", {"a": 0, "b": 7})
    history.follow(run(tmp_path, "second", ["a", "b", "c"]))
    results(tmp_path, "second", {"a": 0, "b": 0, "c": 0}, previous="history/001")
    history.follow(run(tmp_path, "third", ["a", "b", "c", "d"]))
    assert previous(tmp_path) == "history/002"
    assert history.next_ids(tmp_path / "history" / "002") == {"cluster": 8}


def test_tracks_that_change_again_before_they_are_clustered_follow_the_last_clusters(tmp_path):
    results(tmp_path, "first", {"a": 0, "b": 1})
    history.follow(run(tmp_path, "second", ["a", "b", "c"]))
    history.follow(run(tmp_path, "third", ["a", "b", "d"]))
    assert previous(tmp_path) == "history/001"
    assert not (tmp_path / "history" / "002").exists()


def test_another_collection_follows_nothing(tmp_path):
    results(tmp_path, "first", {"a": 0, "b": 1, "c": 1})
    history.follow(run(tmp_path, "second", ["a", "x", "y", "z"]))
    assert previous(tmp_path) is None
    assert not (tmp_path / "history").exists()


def test_names_are_those_that_a_person_gave(tmp_path):
    assert history.names(tmp_path) == {}
    rows = [{"id": "3", "name": "late night"}, {"id": "4", "name": ""}]
    files.write_csv(tmp_path / "cluster_names.csv", ("id", "name"), rows)
    assert history.names(tmp_path) == {3: "late night"}
    files.write_csv(tmp_path / "cluster_names.csv", ("id", "name"), [{"id": "one", "name": "x"}])
    with pytest.raises(UserError, match="an id must be the number of a cluster"):
        history.names(tmp_path)
