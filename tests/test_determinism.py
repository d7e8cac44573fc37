"""The same command gives the same bytes, whatever the machine that runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_collection
from vae_jax.storage import files

# Starts a command under a umask, on one core or on all.
START = """
import os, sys
os.umask(int(sys.argv[1], 8))
if sys.argv[2] == "one":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""
JOB = [
    *("-m", "vae_jax.main", "--config=mlp", "--config.manifest=music/metadata.csv"),
    *("--outdir=results", "--config.feature.sample_rate=8000", "--config.feature.duration=1.0"),
    *("--config.model.latent_dim=3", "--config.model.hidden_dims=(16,)"),
    *("--config.train.num_steps=40", "--config.train.batch_size=8"),
    *("--config.train.eval_every=10", "--config.cluster.num_clusters=3"),
    *("--config.cluster.num_seeds=2", "--config.visualize.method=tsne"),
]
PACKAGE = Path(__file__).parents[1]


def results(folder: Path, umask: str, cores: str, **environ: str) -> dict[str, object]:
    """Run the job in a folder of its own; return what it has written, but for times."""
    write_collection(folder / "music", 15)
    environ |= {"PYTHONPATH": str(PACKAGE)}
    command = [sys.executable, "-c", START, umask, cores, *JOB]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = {}
    for path in (folder / "results").rglob("*"):
        if path.suffix in (".csv", ".npz", ".png"):
            found[str(path.relative_to(folder))] = path.read_bytes()
    rows = files.read_csv(folder / "results" / "clustering_metrics.csv")
    found["results/clustering_metrics.csv"] = [{**row, "time": ""} for row in rows]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no process")
def test_hashes_locale_cores_threads_and_umask_change_no_result(tmp_path: Path) -> None:
    one = results(tmp_path / "one", "022", "one", PYTHONHASHSEED="1", LC_ALL="C", TZ="UTC")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"), "3")
    other = {"PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Asia/Tokyo"}
    all_ = results(tmp_path / "all", "077", "all", **other, **threads)
    assert "results/latent_visualization/training_curves.png" in one
    assert one.keys() == all_.keys()
    assert [name for name in one if one[name] != all_[name]] == []
