"""Several processes as one job over loopback, started as a scheduler would start them."""

import itertools
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import write_collection
from tests.test_main import command
from vae_jax.parallel import processes
from vae_jax.storage import files
from vae_jax.training import checkpoints, history

pytestmark = pytest.mark.slow

LOCAL_CLUSTER = Path(__file__).parents[2] / "launch" / "local_cluster.sh"


def start(folder: Path, num_processes: int, devices: int, *arguments: str) -> subprocess.Popen:
    python, *rest = command("--config.manifest=music/metadata.csv", *arguments)
    environment = {**os.environ, "DEVICES": str(devices), "PYTHON": python, "GRACE": "60"}
    return subprocess.Popen(
        ["bash", str(LOCAL_CLUSTER), str(num_processes), *rest[2:]],  # without -m vae_jax.main
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(job: subprocess.Popen) -> tuple[int, str]:
    try:
        output, _ = job.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        raise
    return job.returncode, output


def only_folder(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder in which one process with four devices has trained."""
    folder = tmp_path_factory.mktemp("job")
    write_collection(folder / "music", 15)
    code, output = finish(start(folder, 1, 4))
    assert code == 0, output
    return folder


@pytest.mark.parametrize(("num_processes", "devices"), [(2, 2), (4, 1)])
def test_the_number_of_processes_changes_no_result(alone, num_processes, devices):
    name = f"{num_processes}x{devices}"
    where = (f"--config.checkpoint_dir={name}", "--config.train.resident_gib=0.0")
    job = start(alone, num_processes, devices, *where, "--stage=train", f"--outdir={name}-results")
    code, output = finish(job)
    assert code == 0, output
    told = re.findall(r"^\[[^0]\] \d\d:\d\d:\d\d (.*)", output, re.M)
    assert all(re.match("process . of", line) for line in told), "all tell what the first does"
    one, many = only_folder(alone / "checkpoints"), only_folder(alone / name)
    assert checkpoints.is_complete(many)
    first, second = (history.read(folder / history.FILE) for folder in (one, many))
    assert [line["step"] for line in first] == [line["step"] for line in second]
    for before, after in zip(first, second, strict=True):
        for metric in before.keys() - {"train/steps_per_second"}:
            np.testing.assert_allclose(after[metric], before[metric], rtol=1e-3, err_msg=metric)


def test_two_processes_embed_what_one_does_to_the_byte(alone):
    arguments = ("--stage=embed", "--outdir=shared", "--config.embed.shard_size=2")
    code, output = finish(start(alone, 2, 4, *arguments))
    assert code == 0, output
    for name in ("latents.npz", "baselines/raw.npz", "baselines/pca.npz", "reconstructions.npz"):
        assert (alone / "shared" / name).read_bytes() == (alone / "results/mlp" / name).read_bytes()


def test_every_piece_of_work_is_of_one_process(monkeypatch):
    monkeypatch.setattr(processes, "_processes", 3)
    shares = []
    for index in range(3):
        monkeypatch.setattr(processes, "_index", index)
        shares.append(processes.own_share(range(7)))
    assert sorted(itertools.chain(*shares)) == list(range(7))
    assert min(map(len, shares)) == 2


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}, False),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False),  # a batch script
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, False),  # Open MPI 5, which JAX does not detect
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"}, True),
    ],
)
def test_only_an_environment_of_several_processes_makes_a_job(monkeypatch, environment, expected):
    for name in (*os.environ,):
        if name.startswith(("SLURM_", "OMPI_", "TPU_", "MEGASCALE_")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes.is_described() == expected


def test_what_slurm_starts_is_one_job_without_a_flag(alone):
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "127.0.0.1"}
    slurm |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}
    jobs = [
        subprocess.Popen(
            command("--config.manifest=music/metadata.csv", "--stage=embed", "--outdir=slurm"),
            cwd=alone,
            env={**os.environ, **slurm, "SLURM_PROCID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for i in range(2)
    ]
    for i, job in enumerate(jobs):
        code, output = finish(job)
        assert code == 0, output
        assert f"process {i} of 2" in output


def long_job(folder: Path, num_processes: int = 2, devices: int = 1) -> subprocess.Popen:
    (folder / "music").exists() or write_collection(folder / "music", 15)
    every = ("--config.train.checkpoint_every=100", "--config.train.log_every=100")
    return start(folder, num_processes, devices, "--config.train.num_steps=1000000", *every)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def process_id(job: subprocess.Popen, number: int) -> int:
    output = read_until(job, f"[{number}] is process")
    return int(re.search(rf"^\[{number}\] is process (\d+)", output, re.M)[1])


@pytest.mark.parametrize("number", [0, 1])
def test_a_dead_process_ends_the_job_and_a_new_start_resumes(tmp_path, number):
    job = long_job(tmp_path)
    wait_for(lambda: list(tmp_path.glob("checkpoints/*/sha256-100.json")))
    os.kill(process_id(job, number), signal.SIGKILL)
    code, output = finish(job)
    assert code != 0
    assert "another process" in output
    again = long_job(tmp_path)
    assert "resuming at step" in read_until(again, "resuming at step")
    again.terminate()
    code, output = finish(again)
    assert code == os.EX_TEMPFAIL, output
    assert len(set(re.findall(r"stopped at step (\d+)", output))) == 1, output


def test_a_signal_to_one_process_stops_all_at_one_step_and_any_number_goes_on(tmp_path):
    job = long_job(tmp_path)
    victim = process_id(job, 1)
    wait_for(lambda: list(tmp_path.glob("checkpoints/*/sha256-100.json")))
    os.kill(victim, signal.SIGTERM)
    code, output = finish(job)
    assert code == os.EX_TEMPFAIL, output
    first, second = re.findall(r"stopped at step (\d+)", output)
    assert first == second
    again = long_job(tmp_path, num_processes=1, devices=3)
    assert f"resuming at step {first} " in read_until(again, "resuming at step")
    again.terminate()
    assert finish(again)[0] == os.EX_TEMPFAIL


def test_a_signal_outside_training_ends_every_process_as_stopped(tmp_path):
    with files.lock(tmp_path / "results" / "mlp"):  # the first waits for it, the second for that
        job = long_job(tmp_path)
        read_until(job, "in use by another run")
        job.terminate()
        code, output = finish(job)
    assert code == os.EX_TEMPFAIL, output
    assert output.count("stopped; the same command continues") == 2, output


def read_until(job: subprocess.Popen, text: str) -> str:
    output = ""
    for line in job.stdout:
        output += line
        if text in line:
            return output
    raise AssertionError(output)
