"""The files in launch/: sound as they are, and run for real against stand-ins for schedulers."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from vae_jax import config as config_lib

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])
RUN = [path for path in SCRIPTS if not path.name.startswith("_")]
KUBERNETES = sorted((LAUNCH / "kubernetes").glob("*.yaml"))


def launch(name: str, *arguments: str, cwd: Path = ROOT, **env: str):
    done = subprocess.run(
        [str(LAUNCH / name), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHON": sys.executable} | env,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def stub(tmp_path):
    """Return a function that puts a command on the path which writes down its calls.

    A command's name may be that of a real one: it is always the stand-in that runs.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "calls").touch()

    def add(name: str, script: str = "") -> dict[str, str]:
        call = f'printf "%s\\n" "$(basename "$0")" "$@" "" >> {tmp_path}/calls'
        (folder / name).write_text(f"#!/bin/bash\n{call}\n{script}\n")
        (folder / name).chmod(0o755)
        return {"PATH": f"{folder}:{os.environ['PATH']}"}

    return add


def calls(tmp_path: Path) -> list[list[str]]:
    text = (tmp_path / "calls").read_text().removesuffix("\n\n")
    return [call.split("\n") for call in text.split("\n\n") if call]


@pytest.fixture
def checkout(tmp_path):
    """Return a copy of launch/ among otherwise empty sources; it installs nothing."""
    folder = tmp_path / "checkout"
    shutil.copytree(LAUNCH, folder / "launch")
    (folder / "launch" / "_venv.sh").write_text("")
    for name in ("vae_jax", "configs"):
        (folder / name).mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md"):
        (folder / name).touch()
    return folder


@pytest.fixture(scope="module")
def flags():
    """Return the names of the main job's flags."""
    command = [sys.executable, "-m", "vae_jax.main", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
    return set(re.findall(r"^  --(?:\[no\])?(\w+):", text, re.MULTILINE))


def assert_flags_exist(arguments: list[str], flags: set[str]) -> None:
    assert arguments
    for argument in arguments:
        name = re.fullmatch(r"--([\w.]+)(=.*)?", argument)[1]
        if name.startswith("config."):
            value = config_lib.get_config()
            for part in name.split(".")[1:]:
                value = value[part]
        else:
            assert name in flags


# All files


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_executable_unless_they_are_sourced(path):
    assert os.access(path, os.X_OK) == (not path.name.startswith("_"))


@pytest.mark.parametrize(
    "path",
    [
        *KUBERNETES,
        *LAUNCH.glob("Dockerfile*"),
        *(LAUNCH / name for name in ("slurm.sbatch", "tpu_pod.sh", "sweep.py", "local_cluster.sh")),
    ],
    ids=lambda path: path.name,
)
def test_a_file_begins_with_its_usage_and_what_to_change(path):
    head = path.read_text()[:1500]
    if path.suffix == ".py":
        assert f"python launch/{path.name} " in head
    else:
        assert re.search(rf"^# usage: .*{path.name}", head, re.MULTILINE)
    assert re.search(r"^(# )?Change", head, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("demo.sh", "exec .venv/bin/python -m vae_jax.explore results/demo"),
        ("test.sh", "exec .venv/bin/python -m pytest -n auto --dist worksteal a\\ b"),
        ("lint.sh", ".venv/bin/mypy"),
        (
            "docs.sh",
            ".venv/bin/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs",
        ),
        (
            "stress.sh",
            "exec env VAE_JAX_STRESS=short .venv/bin/python -m pytest -n auto --dist worksteal "
            "tests/stress tests/test_hostile.py",
        ),
    ],
)
def test_a_dry_run_prints_the_commands_and_leaves_the_checkout_as_it_is(checkout, name, last):
    before = sorted(checkout.rglob("*"))
    arguments = ("a b",) if name in ("demo.sh", "test.sh") else ()
    code, out, err = launch(str(checkout / "launch" / name), "--dry_run", *arguments, cwd=checkout)
    assert (code, err) == (0, "")
    first, *_, ran = (line.strip() for line in out.splitlines())
    assert first.startswith(". launch/_venv.sh ")
    assert ran == last
    assert not arguments or "a\\ b" in out
    assert sorted(checkout.rglob("*")) == before


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.name)
def test_a_script_finds_its_checkout_when_it_is_called_through_a_symbolic_link(
    tmp_path, checkout, path
):
    (tmp_path / "link").symlink_to(checkout / "launch" / path.name)
    arguments = {"tpu_pod.sh": ["logs"], "local_cluster.sh": ["1"]}.get(path.name, [])
    code, out, err = launch(str(tmp_path / "link"), "--dry_run", *arguments, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out


def test_the_same_pythons_are_tested_and_promised_and_images_and_pods_use_one_of_them():
    setup, ci = (ROOT / "setup.py").read_text(), (ROOT / ".ci" / "run").read_text()
    tested = re.findall(r":-(3[\d. ]+)\}", ci)[0].split()
    assert re.findall(r"Python :: (3\.\d+)", setup) == tested
    assert f'python_requires=">={tested[0]}"' in setup
    promise = f"{', '.join(tested[:-1])} and {tested[-1]} were last tested on 20"
    assert promise in " ".join((ROOT / "README.md").read_text().split())
    used = {
        name: set(re.findall(r"(?:PYTHON_VERSION=|python (?:install -q|find) )(3\.\d+)", text))
        for name in ("Dockerfile", "Dockerfile.beam", "tpu_pod.sh")
        if (text := (LAUNCH / name).read_text())
    }
    assert all(len(versions) == 1 and versions <= set(tested) for versions in used.values()), used


def test_nothing_is_made_that_anybody_may_write_or_by_a_name_that_anybody_may_take():
    for path in (path for path in LAUNCH.rglob("*") if path.is_file()):
        assert not re.search(r"\b0?777\b|\b[ao]\+r?w|/tmp/", path.read_text()), path


# Dockerfile


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (LAUNCH / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_the_image_has_one_pinned_base_and_a_user_without_privileges():
    [base] = [rest for name, rest in instructions() if name == "FROM"]
    assert re.fullmatch(r"python:\$\{PYTHON_VERSION\}-slim-[a-z]+", base)
    arguments = [rest.partition("=") for name, rest in instructions() if name == "ARG"]
    values = {name: value for name, _, value in arguments}
    assert re.fullmatch(r"3\.1[1-9]", values["PYTHON_VERSION"])
    assert int(values["USER_ID"]) > 0
    names = [name for name, _ in instructions()]
    assert ("USER", "${USER_ID}") in instructions()
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert not {"RUN", "COPY", "ADD"} & set(names[names.index("USER") :])


def test_what_the_image_copies_exists_and_code_comes_after_its_requirements():
    copied = [rest.split()[:-1] for name, rest in instructions() if name == "COPY"]
    assert all((ROOT / source).exists() for sources in copied for source in sources)
    order = [source for sources in copied for source in sources]
    assert order[:2] == ["setup.py", "pyproject.toml"]
    assert set(order[2:]) == {"vae_jax", "configs"}
    installing = next(i for i, (_, rest) in enumerate(instructions()) if "pip install" in rest)
    code = instructions().index(("COPY", "vae_jax ./vae_jax"))
    assert installing < code


def test_the_image_documents_its_build_arguments_and_knows_the_packages_extras():
    text = (LAUNCH / "Dockerfile").read_text()
    head = text[: text.index("\nARG")]
    arguments = [rest.partition("=")[0] for name, rest in instructions() if name == "ARG"]
    assert [name for name in arguments if f"#   {name} " not in head] == ["PYTHON_VERSION"]
    [extras] = re.findall(r"([\w |]+)\) extra=\"\[", text)
    setup = (ROOT / "setup.py").read_text()
    assert all(f'"{extra.strip()}": ["jax[' in setup for extra in extras.split("|"))
    assert ("ENTRYPOINT", '["tini", "--", "python", "-m", "vae_jax.main"]') in instructions()


def test_requirements_install_without_the_code(tmp_path):
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").touch()
    for name in ("vae_jax", "configs"):
        (tmp_path / name).mkdir()
    (tmp_path / "vae_jax" / "__init__.py").touch()
    command = [sys.executable, "setup.py", "-q", "egg_info"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    requires = (tmp_path / "vae_jax.egg-info" / "requires.txt").read_text()
    assert "jax>=" in requires.split("[")[0]


# Kubernetes

METADATA = {"name": str, "labels": dict}
POD = {
    **{"restartPolicy": str, "terminationGracePeriodSeconds": int, "subdomain": str},
    **{"securityContext": dict, "containers": list, "volumes": list},
}
JOB = {
    **{"completionMode": str, "completions": int, "parallelism": int, "backoffLimit": int},
    **{"podReplacementPolicy": str, "podFailurePolicy": dict, "template": dict},
}
SERVICE = {"clusterIP": str, "publishNotReadyAddresses": bool, "selector": dict, "ports": list}
CLAIM = {"storageClassName": str, "accessModes": list, "resources": dict}
CONTAINER = {
    **{"name": str, "image": str, "args": list, "ports": list, "securityContext": dict},
    **{"resources": dict, "volumeMounts": list},
}
KINDS = {
    "Job": ("batch/v1", JOB),
    "Service": ("v1", SERVICE),
    "PersistentVolumeClaim": ("v1", CLAIM),
}


def documents() -> list[dict]:
    return [doc for path in KUBERNETES for doc in yaml.safe_load_all(path.read_text())]


def document(kind: str, name: str) -> dict:
    [found] = [d for d in documents() if (d["kind"], d["metadata"]["name"]) == (kind, name)]
    return found


def jobs() -> list[dict]:
    return [document for document in documents() if document["kind"] == "Job"]


def container(job: dict) -> dict:
    [only] = job["spec"]["template"]["spec"]["containers"]
    return only


def assert_fits(value: dict, schema: dict[str, type]) -> None:
    assert set(value) <= set(schema)
    assert {
        name: type(part) for name, part in value.items() if type(part) is not schema[name]
    } == {}


def test_kubernetes_objects_have_only_fields_of_their_kinds():
    for doc in documents():
        api_version, spec = KINDS[doc["kind"]]
        assert set(doc) == {"apiVersion", "kind", "metadata", "spec"}
        assert doc["apiVersion"] == api_version
        assert_fits(doc["metadata"], METADATA)
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", doc["metadata"]["name"])
        assert_fits(doc["spec"], spec)
        if doc["kind"] == "Job":
            assert_fits(doc["spec"]["template"]["spec"], POD)
            assert_fits(container(doc), CONTAINER)


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_kubernetes_objects_fit_the_schemas_of_kubernetes(path):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for doc in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(doc, "1.31", strict=True)


def test_the_pods_find_each_other_through_the_headless_service():
    job, service = document("Job", "vae-jax-train"), document("Service", "vae-jax-train")
    spec, pod = job["spec"], job["spec"]["template"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] > 1
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    [port] = service["spec"]["ports"]
    host = f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert f"--coordinator_address={host}:{port['port']}" in container(job)["args"]
    assert [p["containerPort"] for p in container(job)["ports"]] == [port["port"]]
    assert f"--num_processes={spec['completions']}" in container(job)["args"]
    assert "--process_id=$(JOB_COMPLETION_INDEX)" in container(job)["args"]


def test_no_other_pods_carry_the_labels_that_the_service_selects():
    selector = document("Service", "vae-jax-train")["spec"]["selector"].items()
    selected = [
        job for job in jobs() if selector <= job["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert [job["metadata"]["name"] for job in selected] == ["vae-jax-train"]


def test_a_preempted_process_counts_as_no_failure_and_a_crash_of_all_counts():
    spec = document("Job", "vae-jax-train")["spec"]
    exits, disruption = spec["podFailurePolicy"]["rules"]
    assert exits["action"] == disruption["action"] == "Ignore"
    assert exits["onExitCodes"] == {
        "containerName": container({"spec": spec})["name"],
        "operator": "In",
        "values": [os.EX_TEMPFAIL],
    }
    assert disruption["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert spec["backoffLimit"] == 3 * spec["completions"]
    assert spec["podReplacementPolicy"] == "Failed"


@pytest.mark.parametrize("job", jobs(), ids=lambda job: job["metadata"]["name"])
def test_pods_use_real_flags_limited_memory_the_volume_and_no_privileges(job, flags):
    pod, main = job["spec"]["template"]["spec"], container(job)
    assert_flags_exist(main["args"], flags)
    [config] = [a for a in main["args"] if a.startswith("--config=")]
    assert (ROOT / config.removeprefix("--config=/opt/vae_jax/")).exists()
    assert pod["restartPolicy"] == "Never"  # what a podFailurePolicy demands
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert not re.search(r"(^[^:]*|:latest)$", main["image"])
    assert {"cpu", "memory"} <= set(main["resources"]["requests"])
    assert main["resources"]["limits"]["memory"] == main["resources"]["requests"]["memory"]
    mounts = {mount["name"]: mount["mountPath"] for mount in main["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts) == set(volumes)
    assert ("WORKDIR", mounts["work"]) in instructions()
    claim = volumes["work"]["persistentVolumeClaim"]["claimName"]
    assert document("PersistentVolumeClaim", claim)["spec"]["accessModes"] == ["ReadWriteMany"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


def test_features_take_no_accelerator_and_training_does():
    assert "--stage=features" in container(document("Job", "vae-jax-features"))["args"]
    limits = {job["metadata"]["name"]: container(job)["resources"]["limits"] for job in jobs()}
    assert "nvidia.com/gpu" not in limits["vae-jax-features"]
    assert int(limits["vae-jax-train"]["nvidia.com/gpu"]) >= 1


# Slurm


def directives() -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", (LAUNCH / "slurm.sbatch").read_text(), re.M)
    return dict(found)


def test_slurm_starts_one_task_per_gpu_and_signals_them_in_time_to_save():
    options = directives()
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert int(options["nodes"]) > 1
    assert "requeue" in options
    name, seconds = options["signal"].split("@")
    assert (name, int(seconds) >= 60) == ("TERM", True)
    text = (LAUNCH / "slurm.sbatch").read_text()
    assert "\n#SBATCH" not in text[text.index("\nset ") :]  # Slurm reads none after a command


def test_slurm_dry_run_prints_the_job_and_executes_nothing(tmp_path, stub, flags):
    for name in ("srun", "sbatch", "scontrol", "python3"):
        env = stub(name, "exit 1")
    code, out, err = launch("slurm.sbatch", "--dry_run", "--config.seed=3", **env)
    assert code == 0, err
    [line] = [line for line in out.splitlines() if line.startswith("srun ")]
    assert_flags_exist(shlex.split(line.split("-m vae_jax.main")[1]), flags)
    assert line.strip().endswith("--distributed --config.seed=3")
    assert "scontrol requeue" in out
    assert calls(tmp_path) == []


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (1, False), (75, True)])
def test_a_preempted_slurm_job_goes_back_to_the_queue(tmp_path, stub, checkout, status, requeued):
    stub("scontrol")
    env = stub("srun", f"exit {status}")
    env |= {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(checkout), "MANIFEST": "my music.csv"}
    code, _, _ = launch("slurm.sbatch", "--config.seed=3", cwd=tmp_path, **env)
    assert code == status
    started, *others = calls(tmp_path)
    assert {"--config.manifest=my music.csv", "--distributed", "--config.seed=3"} <= set(started)
    assert others == ([["scontrol", "requeue", "7"]] if requeued else [])


def test_the_slurm_script_outside_slurm_says_how_to_submit_it():
    code, _, err = launch("slurm.sbatch", SLURM_JOB_ID="")
    assert code == 2
    assert "sbatch launch/slurm.sbatch" in err


# Cloud TPU


@pytest.mark.parametrize("verb", ["create", "run", "logs", "resume", "delete"])
def test_tpu_dry_run_prints_the_commands_and_executes_nothing(tmp_path, stub, checkout, verb):
    env = stub("gcloud", "exit 1")
    before = sorted(checkout.rglob("*"))
    script = str(checkout / "launch" / "tpu_pod.sh")
    code, out, err = launch(script, "--dry_run", verb, "--config=configs/mlp.py", **env)
    assert code == 0, err
    assert "gcloud compute tpus tpu-vm " in out
    assert all("--zone=us-west4-a" in line for line in out.splitlines() if "gcloud" in line)
    assert calls(tmp_path) == []
    assert sorted(checkout.rglob("*")) == before


def verbs(tmp_path: Path) -> list[str]:
    return [call[4] for call in calls(tmp_path)]  # gcloud compute tpus tpu-vm VERB


def remote(tmp_path: Path) -> list[str]:
    """Return what would run on the hosts, as the lines of each ssh call."""
    text = (tmp_path / "calls").read_text()
    return re.findall(r"--command=(.*?)\n--zone", text, re.DOTALL)


def test_tpu_run_starts_the_job_on_all_hosts_so_that_it_outlives_the_connection(
    tmp_path, stub, checkout, flags
):
    env = stub("gcloud")
    script = str(checkout / "launch" / "tpu_pod.sh")
    arguments = ("--config=configs/mlp.py", "--config.model.hidden_dims=(8, 4)")
    assert launch(script, "run", *arguments, **env)[0] == 0
    [call] = calls(tmp_path)
    assert call[4:7] == ["ssh", "vae-jax", "--worker=all"]
    [command] = remote(tmp_path)
    assert subprocess.run(["bash", "-n", "-c", command]).returncode == 0
    words = shlex.split(command)
    assert "--property=RestartForceExitStatus=75" in words
    given = words[words.index("vae_jax.main") + 1 :]
    assert_flags_exist(given, flags)
    assert given == ["--distributed", *arguments]


def test_tpu_create_makes_the_slice_and_installs_the_sources_on_all_hosts(tmp_path, stub, checkout):
    env = stub("gcloud") | {"ACCELERATOR": "v4-32", "SHARE": "1.2.3.4:/x"}
    assert launch(str(checkout / "launch" / "tpu_pod.sh"), "create", **env)[0] == 0
    assert verbs(tmp_path) == ["create", "scp", "ssh"]
    assert {"--accelerator-type=v4-32", "--spot"} <= set(calls(tmp_path)[0])
    listed = subprocess.run(
        ["tar", "-tzf", checkout / "build" / "vae_jax.tar.gz"], capture_output=True, text=True
    ).stdout.split()
    assert {"vae_jax/", "configs/", "launch/_venv.sh", "setup.py"} <= set(listed)
    [command] = remote(tmp_path)
    assert "mount -t nfs -o hard 1.2.3.4:/x" in command
    [copied] = [call[6] for call in calls(tmp_path) if call[4] == "scp"]
    assert copied == "vae-jax:vae_jax.tar.gz"  # to the home, which is nobody else's
    assert "tar -xzf ~/vae_jax.tar.gz" in command
    assert subprocess.run(["bash", "-n", "-c", command]).returncode == 0


@pytest.mark.parametrize(
    ("describe", "expected"),
    [
        ("echo READY", ["describe", "ssh"]),
        ("echo PREEMPTED", ["describe", "delete", "create", "scp", "ssh", "ssh"]),
        ("exit 1", ["describe", "create", "scp", "ssh", "ssh"]),
    ],
)
def test_tpu_resume_makes_the_slice_again_only_where_it_is_gone(
    tmp_path, stub, checkout, describe, expected
):
    env = stub("gcloud", f"if [ $4 = describe ]; then {describe}; fi")
    script = str(checkout / "launch" / "tpu_pod.sh")
    assert launch(script, "resume", "--config=configs/mlp.py", **env)[0] == 0
    assert verbs(tmp_path) == expected


def test_tpu_create_stops_where_a_step_fails(tmp_path, stub, checkout):
    env = stub("gcloud", "exit 3")
    assert launch(str(checkout / "launch" / "tpu_pod.sh"), "create", **env)[0] == 3
    assert verbs(tmp_path) == ["create"]


def test_tpu_without_a_verb_prints_its_usage():
    code, out, err = launch("tpu_pod.sh")
    assert (code, out) == (2, "")
    assert err.count("tpu_pod.sh") == 5


# The local cluster

# A process that says what it was given, then ends as its number and MODE say.
PROCESS = """
import json, os, signal, sys, time
options = dict(argument[2:].partition("=")[::2] for argument in sys.argv[1:])
number = int(options["process_id"])
print(json.dumps({"arguments": sys.argv[1:], "xla": os.environ["XLA_FLAGS"]}))
print("a warning", file=sys.stderr)
mode = os.environ.get("MODE", "")
if mode == "preempt":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    print("ready")
    time.sleep(60)
if mode == "one dies":
    if number == 1:
        sys.exit(7)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
if mode == "one is killed":
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    print("my peer is gone")
    sys.exit(1)
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "vae_jax").mkdir()
    (tmp_path / "vae_jax" / "__init__.py").touch()
    (tmp_path / "vae_jax" / "main.py").write_text(PROCESS)
    return tmp_path


def said(out: str, number: int) -> dict:
    [line] = [line for line in out.splitlines() if line.startswith(f'[{number}] {{"arg')]
    return json.loads(line.partition(" ")[2])


def test_a_local_cluster_gives_each_process_its_number_and_all_one_address(program, flags):
    code, out, err = launch("local_cluster.sh", "3", "--stage=train", cwd=program, DEVICES="2")
    assert code == 0, err
    given = [said(out, number)["arguments"] for number in range(3)]
    assert_flags_exist(given[0], flags)
    assert [arguments[-1] for arguments in given] == [f"--process_id={i}" for i in range(3)]
    assert len({tuple(arguments[:-1]) for arguments in given}) == 1
    assert given[0][:2] == ["--stage=train", "--distributed"]
    assert re.fullmatch(r"--coordinator_address=127\.0\.0\.1:\d+", given[0][2])
    assert given[0][3] == "--num_processes=3"
    # The last one counts, whatever the environment had.
    assert said(out, 0)["xla"].endswith("--xla_force_host_platform_device_count=2")
    assert sorted(line for line in err.splitlines() if "warning" in line) == [
        f"[{i}] a warning" for i in range(3)
    ]


def test_a_local_cluster_ends_with_the_status_of_the_first_failure_and_kills_the_rest(program):
    started = time.monotonic()
    code, _, err = launch("local_cluster.sh", "3", cwd=program, MODE="one dies", GRACE="1")
    assert code == 7
    assert time.monotonic() - started < 10
    assert "[1] ended with status 7" in err
    for pid in re.findall(r"is process (\d+)", err):
        assert not Path(f"/proc/{pid}").exists()


def test_the_others_have_time_to_end_in_their_own_way(program):
    code, out, err = launch("local_cluster.sh", "2", cwd=program, MODE="one is killed")
    assert code == 128 + signal.SIGKILL
    assert "[0] my peer is gone" in out
    assert "[1] ended with status 137" in err


WITH_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_local_cluster_passes_signals_on_and_returns_the_status_of_preemption(program, number):
    process = subprocess.Popen(
        # A shell ignores SIGINT for good if it was ignored when it began, as in a background job.
        [sys.executable, "-c", WITH_SIGINT, str(LAUNCH / "local_cluster.sh"), "2"],
        cwd=program,
        env=os.environ | {"PYTHON": sys.executable, "MODE": "preempt"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    waiting = {"[0] ready", "[1] ready"}
    while waiting:
        waiting.discard(process.stdout.readline().strip())
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == os.EX_TEMPFAIL


def test_a_local_cluster_dry_run_prints_the_processes_and_starts_none(program):
    code, out, _ = launch("local_cluster.sh", "--dry_run", "2", "--config=a b.py", cwd=program)
    assert code == 0
    lines = [shlex.split(line) for line in out.splitlines()]
    assert [line[-1] for line in lines] == ["--process_id=0", "--process_id=1"]
    assert all(line[0] == "env" and "--config=a b.py" in line for line in lines)


@pytest.mark.parametrize("arguments", [[], ["0"], ["x"], ["--config=a.py", "2"]])
def test_a_local_cluster_without_a_number_says_so(arguments):
    code, _, err = launch("local_cluster.sh", *arguments)
    assert code == 2
    assert "number of processes must come first" in err
