"""The command line on a small collection, as users type it, in processes of its own."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import write_collection
from vae_jax import presets
from vae_jax.storage import files

CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = (
    "--config.feature.sample_rate=8000",
    "--config.feature.duration=1.0",
    "--config.model.latent_dim=2",
    "--config.model.hidden_dims=(16,)",
    "--config.train.num_steps=60",
    "--config.train.batch_size=8",
    "--config.train.checkpoint_every=20",
    "--config.cluster.num_clusters=3",
    "--config.cluster.num_seeds=2",
    "--config.visualize.method=pca",
)


def command(*arguments: str, config: str | None = "mlp.py") -> list[str]:
    given = [f"--config={CONFIGS / config}", *SMALL] if config else []
    return [sys.executable, "-m", "vae_jax.main", *given, *arguments]


def run(folder: Path, *arguments: str, config: str | None = "mlp.py"):
    done = subprocess.run(
        command(*arguments, config=config), cwd=folder, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def succeed(folder: Path, *arguments: str, config: str | None = "mlp.py"):
    code, out, err = run(folder, *arguments, config=config)
    assert code == 0, err
    return out, err


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the main job has run on a small collection."""
    folder = tmp_path_factory.mktemp("finished")
    write_collection(folder / "music", 15)
    out, err = succeed(folder, "--config.manifest=music/metadata.csv", "--outdir=results/a")
    (folder / "out").write_text(out)
    (folder / "err").write_text(err)
    return folder


def stages(err: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+): (done|up to date) \(", err))


def test_the_main_job_writes_what_it_promises(finished):
    results = finished / "results" / "a"
    latents = files.read_npz(results / "latents.npz")
    assert latents["ids"].tolist() == [f"track-{i}" for i in range(15)]
    assert latents["latents"].shape == latents["log_variances"].shape == (15, 2)
    assert latents["latents"].dtype == np.float32
    clusters = files.read_csv(results / "clusters.csv")
    assert [row["id"] for row in clusters] == latents["ids"].tolist()
    rows = files.read_csv(results / "clustering_metrics.csv")
    assert [(row["method"], row["seed"]) for row in rows] == [
        (method, seed) for method in ("vae", "pca", "raw") for seed in "01"
    ]
    assert json.loads((results / "config.json").read_text())["model"]["latent_dim"] == 2
    assert files.read_csv(results / "failed.csv") == []
    for plot in ("vae_pca_by_label", "vae_pca_clusters", "pca_pca_clusters", "training_curves"):
        assert (results / "latent_visualization" / f"{plot}.png").stat().st_size > 5000


def test_the_run_ends_with_a_table_and_the_files_it_wrote(finished):
    out = (finished / "out").read_text()
    assert re.search(r"^\S*vae.*\d", out, re.MULTILINE)
    assert re.search(r"^\S*pca.*\d", out, re.MULTILINE)
    assert "results/a/latents.npz" in out
    _, listed = out.split("Written or up to date:\n")
    named = re.search(r"(results/a/latent_visualization)/ \((\d+) files\)", listed)
    written = [path for path in (finished / named[1]).iterdir() if path.is_file()]
    assert len(written) == int(named[2])
    for path in listed.splitlines():
        assert (finished / path.strip().partition(" (")[0]).exists(), path


def test_nothing_that_a_run_writes_may_be_written_by_others(finished):
    assert {path for path in finished.rglob("*") if path.lstat().st_mode & 0o022} == set()


def test_a_second_run_is_up_to_date_everywhere(finished):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    _, err = succeed(finished, "--config.manifest=music/metadata.csv", "--outdir=results/a")
    names = ("features", "train", "embed", "cluster", "visualize")
    assert stages(err) == dict.fromkeys(names, "up to date")
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_another_number_of_clusters_redoes_only_clustering_and_plots(finished):
    _, err = succeed(
        finished,
        "--config.manifest=music/metadata.csv",
        "--outdir=results/a",
        "--config.cluster.num_clusters=4",
    )
    assert stages(err) == {
        "features": "up to date",
        "train": "up to date",
        "embed": "up to date",
        "cluster": "done",
        "visualize": "done",
    }
    rows = files.read_csv(finished / "results" / "a" / "clustering_metrics.csv")
    assert [row["k"] for row in rows if row["method"] == "vae"] == ["3", "3", "4", "4"]


def test_a_checkpoint_alone_embeds_new_tracks(finished, tmp_path):
    write_collection(tmp_path / "new", 6)
    (checkpoint,) = (finished / "checkpoints").iterdir()
    shutil.copytree(checkpoint, tmp_path / "model")
    succeed(
        tmp_path,
        "--checkpoint=model",
        "--config.manifest=new/metadata.csv",
        "--config.cluster.num_clusters=2",
        "--outdir=out",
        config=None,
    )
    new = files.read_npz(tmp_path / "out" / "latents.npz")
    old = files.read_npz(finished / "results" / "a" / "latents.npz")
    # The first six tracks of both collections are the same sounds.
    np.testing.assert_allclose(new["latents"], old["latents"][:6], atol=1e-5)


@pytest.mark.slow
def test_stages_run_one_by_one_give_the_same_latents(finished, tmp_path):
    write_collection(tmp_path / "music", 15)
    for stage in ("features", "train", "embed"):
        succeed(tmp_path, f"--stage={stage}", "--config.manifest=music/metadata.csv")
    again = files.read_npz(tmp_path / "results" / "mlp" / "latents.npz")
    before = files.read_npz(finished / "results" / "a" / "latents.npz")
    assert again["latents"].tobytes() == before["latents"].tobytes()


def test_a_training_log_that_lost_its_end_is_named(finished):
    (log,) = finished.glob("checkpoints/*/train_metrics.jsonl")
    again = ("--config.manifest=music/metadata.csv", "--outdir=results/a", "--stage=train")
    whole = log.read_bytes()
    try:
        log.write_bytes(whole[: whole.rindex(b"{")])
        assert "train_metrics.jsonl is damaged" in succeed(finished, *again)[1]
    finally:
        log.write_bytes(whole)
    assert "damaged" not in succeed(finished, *again)[1]


def test_a_stage_whose_input_is_missing_names_the_stage_to_run(finished, tmp_path):
    manifest = f"--config.manifest={finished / 'music' / 'metadata.csv'}"
    for stage, missing in {"train": "features", "embed": "features", "cluster": "embed"}.items():
        code, _, err = run(tmp_path, f"--stage={stage}", manifest)
        assert code == 1
        assert f"run --stage={missing} first" in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_its_own_status_and_the_same_command_continues(tmp_path):
    write_collection(tmp_path / "music", 15)
    arguments = ("--config.manifest=music/metadata.csv", "--config.train.num_steps=1000000")
    arguments += ("--config.train.checkpoint_every=100000",)
    start = functools.partial(
        subprocess.Popen, command(*arguments), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    process = start()
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob("checkpoints/*/*.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == os.EX_TEMPFAIL
    saved = re.search(r"stopped at step (\d+)", process.stderr.read())
    again = start()
    assert any(f"resuming at step {saved[1]} " in line for line in again.stderr)
    again.kill()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no --config is given"),
        (["--config=configs/nothing.py"], "configs/nothing.py"),
        (["--config=CONFIG", "--config.model.latnet_dim=3"], "mean config.model.latent_dim?"),
        (["--config=CONFIG", "--config.latent_dim=3"], "mean config.model.latent_dim?"),
        (["--config=CONFIG", "--manifest=music.csv"], "mean --config.manifest?"),
        (["--config=CONFIG", "--latent-dim=3"], "mean --config.model.latent_dim?"),
        (["--config=CONFIG", "--outdri=a"], "mean --outdir?"),
        (["--config=CONFIG"], "config.manifest is not set"),
        (["--config=CONFIG", "--config.model.latent_dim=many"], "latent_dim"),
        (["--config=CONFIG", "--config.train.learning_rate=nan"], "config.train.learning_rate"),
        (["--config=CONFIG", "--stage=everything"], "stage"),
        (["--config=CONFIG", "--no_such_flag"], "no_such_flag"),
        (["--config=CONFIG", "stray"], "unexpected argument 'stray'"),
        (["--config=CONFIG", "--config.manifest=nothing.csv"], "nothing.csv"),
        (["--checkpoint=nothing"], "no sound checkpoint"),
        (["--config=CONFIG", "--num_processes=2", "--process_id=0"], "--coordinator_address"),
    ],
)
def test_a_mistake_ends_in_one_sentence_without_a_traceback(tmp_path, arguments, expected):
    arguments = [argument.replace("CONFIG", str(CONFIGS / "mlp.py")) for argument in arguments]
    code, out, err = run(tmp_path, *arguments, config=None)
    assert code == 1
    assert expected in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_print_config_shows_the_overridden_values(tmp_path):
    out, _ = succeed(tmp_path, "--print_config", "--config.model.beta=2.5")
    assert json.loads(out)["model"]["beta"] == 2.5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("config", presets.names())
def test_every_config_is_valid(tmp_path, config):
    done = subprocess.run(
        [sys.executable, "-m", "vae_jax.main", f"--config={config}", "--print_config"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy():
    program = "import sys, vae_jax.main; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    heavy = {"jax", "flax", "sklearn", "librosa", "matplotlib", "umap", "tensorflow_datasets"}
    assert heavy.isdisjoint(modules.split())
