"""launch/sweep.py as users type it; a stand-in for the main job where that would take long."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import write_collection
from vae_jax.storage import files
from vae_jax.training.history import History

ROOT = Path(__file__).parents[2]
SWEEP = (sys.executable, str(ROOT / "launch" / "sweep.py"), "--config=any.py", "--outdir=sweep")

# A stand-in that looks like the main job from outside; its seed says how it behaves.
MAIN_JOB = """
import pathlib, signal, sys, time
options = dict(argument[2:].partition("=")[::2] for argument in sys.argv[1:])
outdir = pathlib.Path(options["outdir"])
seed = int(options.get("config.seed", 0))
(outdir / f"attempt-{len(list(outdir.glob('attempt-*')))}").write_text(" ".join(sys.argv[1:]))
if seed == 1:
    print("some line")
    sys.exit("vae_jax: config.seed is 1.")
if seed == 2 and not (outdir / "attempt-1").exists():
    sys.exit(75)
if seed == 3:
    sys.exit(75)
if seed == 4:
    signal.signal(signal.SIGTERM, lambda *_: ((outdir / "saved").touch(), sys.exit(75)))
    (outdir / "ready").touch()
    time.sleep(60)
if seed == 5:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (outdir / "ready").touch()
    time.sleep(60)
row = "r,2026-01-01T00:00:00,{},{},mfcc,mlp,kmeans,3,9,.5"
rows = [row.format(method, seed) for method in ("vae", "pca") for seed in (0, 1)]
header = "run_id,time,method,seed,feature,model,clusterer,k,n,silhouette"
(outdir / "clustering_metrics.csv").write_text("\\n".join([header, *rows, ""]))
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vae_jax").mkdir()
    (tmp_path / "vae_jax" / "__init__.py").touch()
    (tmp_path / "vae_jax" / "main.py").write_text(MAIN_JOB)
    return tmp_path


def sweep(folder: Path, *arguments: str, **env: str):
    done = subprocess.run(
        [*SWEEP, *arguments], cwd=folder, capture_output=True, text=True, env=os.environ | env
    )
    return done.returncode, done.stdout, done.stderr


def planned(folder: Path, *arguments: str) -> list[list[str]]:
    code, out, err = sweep(folder, "--dry_run", *arguments)
    assert code == 0, err
    return [shlex.split(line)[1:] for line in out.splitlines()]


def values(commands: list[list[str]], key: str) -> list[str]:
    start = f"--config.{key}="
    return [
        word.removeprefix(start) for line in commands for word in line if word.startswith(start)
    ]


def attempts(folder: Path, name: str) -> int:
    return len(list((folder / "sweep" / name).glob("attempt-*")))


def test_a_dry_run_prints_every_command_and_executes_nothing(folder):
    before = sorted(folder.rglob("*"))
    grid = ("--grid", "model.latent_dim=8,16", "--grid", "model.hidden_dims=(8,4),(16,)")
    commands = planned(folder, *grid, "--", "--config.manifest=x.csv")
    assert commands[0] == [
        *("-m", "vae_jax.main", "--config=any.py"),
        *("--config.model.latent_dim=8", "--config.model.hidden_dims=(8,4)"),
        "--outdir=sweep/model.latent_dim=8,model.hidden_dims=_8,4_",
        "--config.manifest=x.csv",
    ]
    assert values(commands, "model.latent_dim") == ["8", "8", "16", "16"]
    assert values(commands, "model.hidden_dims") == ["(8,4)", "(16,)", "(8,4)", "(16,)"]
    assert sorted(folder.rglob("*")) == before


def test_config_keys_go_to_every_run_without_dashes_in_front(folder):
    before = ("--config.manifest=x.csv", "--grid=seed=0,1", "--config.train.num_steps=5")
    commands = planned(folder, *before, "--", "--stage=features")
    rest = ["--stage=features", "--config.manifest=x.csv", "--config.train.num_steps=5"]
    assert [command[-3:] for command in commands] == [rest, rest]
    code, _, err = sweep(folder, "--grid=seed=0,1", "--config.seed=3")
    assert code == 1
    assert "--config.seed is set by the sweep" in err
    code, _, err = sweep(folder, "--grid=seed=0,1", "--jbos=2")
    assert (code, err.count("\n")) == (1, 1)
    assert "jbos" in err


def test_drawn_combinations_lie_in_their_ranges_and_follow_the_seed(folder):
    options = ("--grid=model.beta=1,4", "--range=train.learning_rate=log:1e-4:1e-2")
    options += ("--range=model.latent_dim=int:2:64", "--range=train.weight_decay=lin:0:0.5")
    drawn = planned(folder, *options, "--random=20")
    assert len(drawn) == 20
    assert set(values(drawn, "model.beta")) == {"1", "4"}
    rates = [float(value) for value in values(drawn, "train.learning_rate")]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert 4 <= sum(rate < 1e-3 for rate in rates) <= 16  # as many below as above the middle
    assert all(2 <= int(value) <= 64 for value in values(drawn, "model.latent_dim"))
    assert all(0 <= float(value) <= 0.5 for value in values(drawn, "train.weight_decay"))
    assert planned(folder, *options, "--random=30")[:20] == drawn
    assert planned(folder, *options, "--random=20", "--seed=1") != drawn


def test_combinations_drawn_from_a_grid_are_all_different(folder):
    options = ("--grid=seed=0,1,2,3", "--grid=model.beta=1,2,4")
    drawn = planned(folder, *options, "--random=5")
    assert len({tuple(line) for line in drawn}) == 5
    assert planned(folder, *options, "--random=7")[:5] == drawn
    assert len(planned(folder, *options, "--random=50")) == 12


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "nothing varies"),
        (["--grid=seed"], "'seed' is not understood"),
        (["--grid=--seed=1"], "not understood"),
        (["--grid=seed=1", "--grid=seed=2"], "given twice"),
        (["--grid=seed=1,1"], "give each value once"),
        (["--range=model.beta=lin:0:1"], "--range needs --random"),
        (["--range=model.beta=log:0:1", "--random=2"], "model.beta=log:0:1 is not understood"),
        (["--range=model.beta=cube:1:2", "--random=2"], "lin:LOW:HIGH"),
        (["--range=seed=int:1:x", "--random=2"], "int:LOW:HIGH"),
        (["--grid=seed=1", "--", "--outdir=x"], "--outdir is set by the sweep"),
        (["--grid=seed=1", "--", "--config.seed=3"], "--config.seed is set by the sweep"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_runs(folder, options, expected):
    code, _, err = sweep(folder, *options)
    assert code == 1
    assert expected in err
    assert "Traceback" not in err
    assert not (folder / "sweep").exists()


def test_runs_are_ranked_by_validation_loss_where_it_measures_the_same(folder):
    options = ("--grid=model.latent_dim=2,4,8", "--grid=model.beta=1,3")
    assert sweep(folder, *options)[0] == 0
    losses = {"2": (50.0, 150.0), "4": (25.0, 75.0), "8": (math.nan, math.nan)}
    for latent_dim, by_beta in losses.items():
        for beta, loss in zip("13", by_beta, strict=True):
            run = folder / "sweep" / f"model.latent_dim={latent_dim},model.beta={beta}"
            metrics = History(run, 0)
            metrics.log(1, {"eval/loss": loss, "eval/kl": 2.0})
            metrics.log(2, {"eval/loss": loss + 1, "eval/kl": 3.0})
            metrics.close()
    code, out, err = sweep(folder, *options, "--gather")
    assert code == 0, err
    rows = files.read_csv(folder / "sweep" / "sweep.csv")
    found = [tuple(row[f"model.{key}"] for key in ("beta", "latent_dim")) for row in rows]
    assert found == [(beta, latent_dim) for beta in "13" for latent_dim in "428"]
    assert [row["validation_loss"] for row in rows] == ["25.0", "50.0", "", "75.0", "150.0", ""]
    assert [row["validation_kl"] for row in rows] == ["2.0", "2.0", "", "2.0", "2.0", ""]
    blocks = out[out.index("validation loss") :].split("\n\n")
    assert ["beta=1" in block for block in blocks[:2]] == [True, False]
    assert attempts(folder, "model.latent_dim=2,model.beta=1") == 1


def test_the_results_are_gathered_by_compare(folder):
    code, out, _ = sweep(folder, "--grid=model.latent_dim=2,4", "--jobs=2")
    assert code == 0
    assert "sweep/model.latent_dim=2: mfcc, mlp, kmeans" in out
    compared = files.read_csv(folder / "sweep" / "comparison.csv")
    assert [(row["directory"], row["method"]) for row in compared] == [
        (f"sweep/model.latent_dim={k}", method) for k in (2, 4) for method in ("vae", "pca")
    ]


def test_failures_are_listed_with_their_last_line_and_the_others_run_on(folder):
    code, out, err = sweep(folder, "--grid=seed=1,0")
    assert code == 1
    assert (
        "1 of 2 runs failed:\n  seed=1: vae_jax: config.seed is 1. (sweep/seed=1/sweep.log)" in err
    )
    assert "some line" in (folder / "sweep" / "seed=1" / "sweep.log").read_text()
    rows = {row["run"]: row for row in files.read_csv(folder / "sweep" / "sweep.csv")}
    assert rows["seed=0"]["status"] == "0"
    assert rows["seed=1"]["status"] == "1"
    assert rows["seed=1"]["validation_loss"] == ""
    assert "sweep/seed=0: mfcc" in out


def test_a_folder_that_cannot_be_made_is_named(folder):
    (folder / "file").touch()
    code, _, err = sweep(folder, "--grid=seed=0", "--outdir=file/sweep")
    assert code == 1
    assert err.splitlines()[-1].startswith("vae_jax: cannot write file/sweep/seed=0/sweep.log: ")
    assert "Traceback" not in err


def test_a_preempted_run_is_continued_but_not_for_ever(folder):
    code, _, err = sweep(folder, "--grid=seed=2,3")
    assert code == 1
    assert attempts(folder, "seed=2") == 2
    assert attempts(folder, "seed=3") == 11
    assert "1 of 2 runs failed" in err
    assert json.loads((folder / "sweep" / "seed=3" / "sweep.json").read_text())["status"] == 75


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_sweep_lets_its_runs_save_and_starts_no_others(folder, number):
    runs = "--grid=seed=4,0", "--grid=model.beta=1,2", "--jobs=2"
    process = subprocess.Popen([*SWEEP, *runs], cwd=folder, stderr=subprocess.PIPE, text=True)
    names = [folder / "sweep" / f"seed=4,model.beta={beta}" for beta in (1, 2)]
    wait_for(*(name / "ready" for name in names))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "the same command continues it" in err
    assert all((name / "saved").exists() for name in names)
    assert sorted(path.name for path in (folder / "sweep").iterdir()) == [n.name for n in names]


def test_a_second_signal_kills_runs_that_do_not_stop(folder):
    process = subprocess.Popen(
        [*SWEEP, "--grid=seed=5"], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    wait_for(folder / "sweep" / "seed=5" / "ready")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75


@pytest.fixture
def slurm(folder):
    """Put an sbatch on the path that writes down its arguments and answers with job ids."""
    (folder / "bin").mkdir()
    stub = folder / "bin" / "sbatch"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "" >> submitted\necho "42;cluster"\n')
    stub.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def test_slurm_gets_an_array_of_the_runs_and_a_job_that_gathers_after_it(folder, slurm):
    code, _, err = sweep(folder, "--grid=seed=0,1,2", "--jobs=2", "--slurm", "--", "--x=1", **slurm)
    assert code == 0, err
    array, after = (folder / "submitted").read_text().strip().split("\n\n")
    assert {"--array=0-2%2", "--requeue", "--signal=TERM@300"} <= set(array.splitlines())
    assert "--dependency=afterany:42" in after.splitlines()
    tasks = re.search(r"--wrap=srun --ntasks=1 (.*); status=", array)[1]
    (folder / "sweep").mkdir(exist_ok=True)
    for task in (0, 1):
        env = os.environ | {"SLURM_ARRAY_TASK_ID": str(task)}
        done = subprocess.run(shlex.split(tasks), cwd=folder, env=env)
        assert done.returncode == 0
    assert "--x=1" in (folder / "sweep" / "seed=0" / "attempt-0").read_text()
    gathers = re.search(r"--wrap=(.*)", after)[1]
    done = subprocess.run(shlex.split(gathers), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert "2 of 3 runs failed" in done.stderr
    assert "seed=1: vae_jax: config.seed is 1." in done.stderr
    assert "seed=2: it has not ended" in done.stderr
    assert attempts(folder, "seed=0") == 1


def test_a_dry_run_for_slurm_submits_nothing(folder, slurm):
    code, out, err = sweep(folder, "--grid=seed=0,1", "--slurm", "--dry_run", **slurm)
    assert code == 0, err
    assert out.count("sbatch ") == 2
    assert not (folder / "submitted").exists()
    assert not (folder / "sweep").exists()


def test_a_preempted_task_of_an_array_goes_back_to_the_queue(folder, slurm):
    stub = folder / "bin" / "srun"
    stub.write_text("#!/bin/sh\nexit ${STATUS}\n")
    stub.chmod(0o755)
    (folder / "bin" / "scontrol").write_text('#!/bin/sh\necho "$@" >> requeued\n')
    (folder / "bin" / "scontrol").chmod(0o755)
    sweep(folder, "--grid=seed=0", "--slurm", **slurm)
    script = re.search(r"--wrap=(srun .*)", (folder / "submitted").read_text())[1]
    env = os.environ | slurm | {"SLURM_ARRAY_JOB_ID": "42", "SLURM_ARRAY_TASK_ID": "0"}
    for status in ("0", "1", "75"):
        done = subprocess.run(["sh", "-c", script], cwd=folder, env=env | {"STATUS": status})
        assert str(done.returncode) == status
    assert (folder / "requeued").read_text() == "requeue 42_0\n"


@pytest.mark.slow
def test_the_main_job_itself_is_swept(tmp_path):
    write_collection(tmp_path / "music", 12)
    command = [*SWEEP[:2], f"--config={ROOT / 'configs' / 'mlp.py'}", "--outdir=sweep"]
    command += ["--grid=model.latent_dim=2,3", "--jobs=2", "--"]
    command += ["--config.manifest=music/metadata.csv", "--config.feature.sample_rate=8000"]
    command += ["--config.train.num_steps=20", "--config.train.eval_every=10"]
    command += ["--config.model.hidden_dims=(8,)", "--config.cluster.num_clusters=3"]
    command += ["--config.cluster.num_seeds=2", "--config.visualize.method=pca"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = files.read_csv(tmp_path / "sweep" / "sweep.csv")
    assert {row["run"] for row in rows} == {"model.latent_dim=2", "model.latent_dim=3"}
    assert all(float(row["validation_loss"]) for row in rows)
    assert len(files.read_csv(tmp_path / "sweep" / "comparison.csv")) == 6  # vae, pca, raw
