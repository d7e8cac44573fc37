"""What collections of a thousand to a hundred million tracks take: time, money, bottleneck.

python -m benchmarks.run scaling      writes benchmarks/scaling.md

Each stage of the main job is run at two sizes on this machine: the slope is its cost per track, and
the rest its start. The plans follow from these and from the assumptions below. Nothing in them was
run at that size.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import features, scale, synthetic
from benchmarks.measure import machine, run_command
from benchmarks.startup import MAIN
from vae_jax.config import get_config, to_dict
from vae_jax.parallel.cores import num_cores
from vae_jax.records import reader
from vae_jax.storage import files
from vae_jax.training import history

OUT = Path(__file__).with_name("scaling.md")
LOCAL_CLUSTER = Path(__file__).parents[1] / "launch" / "local_cluster.sh"

# Assumptions: change them to what you have and pay.
MACHINES = {1_000: 1, 1_000_000: 4, 100_000_000: 64}  # like the one measured, by number of tracks
DOLLARS_PER_CORE_HOUR = 0.05  # a virtual core of a general-purpose machine, on demand
NETWORK = 1.25e9  # bytes/s between machines, each way: 10 Gbit/s
EPOCHS, LEAST_STEPS = 3, 3_000  # of training: so many epochs, but no fewer steps
BATCH = scale.BATCH_SIZE  # tracks per step, over all machines
FLOAT_BYTES = 4  # of a parameter's gradient

STAGES = ("train", "embed", "cluster")
LARGE = ("--config.embed.format=sharded", "--config.train.resident_gib=0.0")  # none fits in memory


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes
    ----------
    audio, tracks
        The two sizes at which extraction, and all after it, are timed.
    files
        The number of different audio files.
    seconds
        The length of each.
    steps
        The steps of the training by several processes.
    """

    audio: tuple[int, int] = (64, 512)
    tracks: tuple[int, int] = (50_000, 500_000)
    files: int = 16
    seconds: float = 30.0
    steps: int = 1000
    processes: tuple[int, ...] = (1, 2, 4)


TINY = Sizes((2, 4), (20, 40), files=2, seconds=1.0, steps=4, processes=(1, 2))


@dataclass(frozen=True)
class Cost:
    """What a stage costs on one machine.

    Attributes
    ----------
    start
        Seconds, whatever the number of tracks.
    per_track
        Seconds of the whole machine, with all its cores.
    is_shared
        Whether several machines share the tracks.
    """

    stage: str
    start: float
    per_track: float
    is_shared: bool

    @classmethod
    def of(cls, stage: str, counts: Sequence[int], seconds: Sequence[float]) -> "Cost":
        """Draw the line through two measurements."""
        slope = max(0.0, (seconds[1] - seconds[0]) / (counts[1] - counts[0]))
        return cls(stage, max(0.0, seconds[0] - slope * counts[0]), slope, stage != "cluster")


@dataclass(frozen=True)
class Share:
    """What a stage, or the all-reduce of training, takes in a plan."""

    stage: str
    hours: float
    dollars: float


def plan(
    costs: Sequence[Cost], num_parameters: int, tracks: int, machines: int, cores: int
) -> list[Share]:
    """Return what each stage takes on `machines` with so many cores."""
    shares: list[Share] = []
    for cost in costs:
        count = machines if cost.is_shared else 1
        seconds = {cost.stage: cost.start + cost.per_track * examples(cost.stage, tracks) / count}
        if cost.stage == "train":
            steps = examples("train", tracks) / BATCH
            seconds["all-reduce"] = steps * exchanged(num_parameters, count) / NETWORK
        price = count * cores * DOLLARS_PER_CORE_HOUR / 3600
        shares += [Share(name, time / 3600, time * price) for name, time in seconds.items()]
    return shares


def examples(stage: str, tracks: int) -> int:
    """Return how often a track is looked at by a stage, over all tracks."""
    return max(EPOCHS * tracks, LEAST_STEPS * BATCH) if stage == "train" else tracks


def exchanged(num_parameters: int, processes: int) -> float:
    """Return the bytes that a process sends in a training step: a ring's all-reduce of gradients.

    Patarasuk and Yuan 2009, section 3: twice (P - 1)/P of what is reduced.
    """
    return 2 * (processes - 1) / processes * FLOAT_BYTES * num_parameters


def bottleneck(shares: Sequence[Share]) -> str:
    """Name the stage that takes longest, and its share of the time."""
    longest, total = max(shares, key=lambda one: one.hours), sum(one.hours for one in shares)
    return f"{longest.stage}, {longest.hours / total:.0%} of the time"


def report(sizes: Sizes) -> str:
    """Measure, plan, and return Markdown."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs = list(measure_costs(folder, sizes))
        parameters = {model: count_parameters(folder, model) for model in ("mlp", "conv2d")}
        rates = {count: training_rate(folder, sizes, count) for count in sizes.processes}
    cores = num_cores()
    plans = {
        tracks: plan(costs, parameters["mlp"], tracks, machines, cores)
        for tracks, machines in MACHINES.items()
    }
    return "\n\n".join(
        [
            "# Scaling",
            "Written by `python -m benchmarks.run scaling`. The costs are measured, the plans are "
            "computed from them: nothing was run at the larger sizes.",
            f"{machine()}.",
            "## Cost of each stage\n\nOn this machine with all its cores: 30-s mp3 to MFCC, then "
            "the MLP VAE, with features streamed from the disk and latents in shards.",
            _table(("stage", "start, s", "per track, ms", "shared by machines"), _costs(costs)),
            "## Communication\n\nA training step all-reduces the gradients, 4 bytes a parameter, "
            "and nothing else; each process sends so much. Embedding exchanges nothing.",
            _table(("model", "parameters", "2 processes", "many"), _traffic(parameters)),
            "## Training by several processes\n\nOver loopback, one core for each process as far "
            f"as the {cores} here reach, the batch of {BATCH} split among them.",
            _table(("processes", "steps/s", "efficiency"), _efficiency(rates)),
            "## Plans\n\n" + _assumptions(cores),
            _table(
                ("tracks", "machines", *(f"{share.stage}, h" for share in plans[max(plans)]),
                 "in all, h", "$", "bottleneck"),
                [_plan_row(tracks, shares) for tracks, shares in plans.items()],
            ),
        ]
    ) + "\n"  # fmt: skip


def measure_costs(folder: Path, sizes: Sizes) -> Iterator[Cost]:
    """Yield the cost of each stage."""
    seconds = [_extraction_seconds(folder / f"audio-{n}", n, sizes) for n in sizes.audio]
    yield Cost.of("features", sizes.audio, seconds)
    measured = []
    for count in sizes.tracks:
        into = folder / f"tracks-{count}"
        into.mkdir()
        _, *lines = scale.rehearse(into, count, STAGES, LARGE)
        measured.append([line.ours for line in lines])
    for stage, both in zip(STAGES, zip(*measured, strict=True), strict=True):
        if stage == "train":  # one epoch, in whole batches
            size = min(BATCH, *sizes.tracks)
            yield Cost.of(stage, [-(-n // size) * size for n in sizes.tracks], both)
        else:
            yield Cost.of(stage, sizes.tracks, both)


def count_parameters(folder: Path, model: str) -> int:
    """Return the number of parameters of a model in its default config."""
    import jax

    from vae_jax.training.input_pipeline import Source
    from vae_jax.training.model_spec import ModelSpec
    from vae_jax.training.objective import Objective, init_state, make_optimizer

    config = get_config()
    config.model.name = model
    config.feature.name = "logmelspec" if model == "conv2d" else "mfcc"
    settings, directory = to_dict(config), folder / f"records-{model}"
    synthetic.write_records(directory, settings["feature"], 2, 128 if model == "conv2d" else 0)
    stored = reader.Records(directory)
    described = ModelSpec.of(settings, stored, [])
    network, view = described.build()
    objective = Objective(network, view, 1.0, 1, 0.0)
    tracks = Source(stored).load([0]) | {"position": jax.numpy.zeros(1, int)}
    optimizer = make_optimizer(described.resolved["train"])
    state = jax.eval_shape(
        lambda key: init_state(objective, optimizer, key, tracks), jax.random.key(0)
    )
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def training_rate(folder: Path, sizes: Sizes, processes: int) -> float:
    """Return the steps per second of a job of so many processes, each with a core if there is."""
    into, out = folder / f"tracks-{sizes.tracks[0]}", f"out-{processes}"
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:processes]))
    every = max(1, sizes.steps // 10)
    command = [
        *("taskset", "--cpu-list", cores, "env", f"PYTHON={sys.executable}"),
        *("bash", str(LOCAL_CLUSTER), str(processes), "--config=config.py", "--stage=train"),
        *(f"--outdir={out}", f"--config.checkpoint_dir={out}", f"--config.train.log_every={every}"),
        *(f"--config.train.{key}={sizes.steps}" for key in ("num_steps", "eval_every")),
    ]
    _, _, status, output = run_command(command, into)
    if status:
        raise RuntimeError(output[-2000:])
    lines = history.read(into / out / history.FILE)
    rates = [line["train/steps_per_second"] for line in lines if "train/steps_per_second" in line]
    return statistics.median(rates[1:] or rates)  # the first one compiles


def _extraction_seconds(folder: Path, count: int, sizes: Sizes) -> float:
    paths = features.write_audio(folder / "mp3", "mp3", sizes.files, sizes.seconds)
    rows = [{"id": f"track-{i}", "audio_path": paths[i % len(paths)]} for i in range(count)]
    files.write_csv(folder / "metadata.csv", ("id", "audio_path"), rows)
    (folder / "config.py").write_text("from vae_jax.config import get_config  # noqa: F401\n")
    arguments = ("--config=config.py", "--config.manifest=metadata.csv", "--stage=features")
    seconds, _, status, output = run_command([*MAIN, *arguments], folder)
    if status:
        raise RuntimeError(output[-2000:])
    return seconds


def _costs(costs: Sequence[Cost]) -> list[list[str]]:
    shared = {True: "yes", False: "no"}
    return [
        [one.stage, _number(one.start), _number(1000 * one.per_track), shared[one.is_shared]]
        for one in costs
    ]


def _traffic(parameters: dict[str, int]) -> list[list[str]]:
    return [
        [model, f"{count:,}", *(f"{exchanged(count, n) / 1e6:.3g} MB" for n in (2, 1000))]
        for model, count in parameters.items()
    ]


def _efficiency(rates: dict[int, float]) -> list[list[str]]:
    alone = rates[min(rates)]
    return [
        [str(count), _number(rate), f"{rate / alone / min(count, num_cores()):.0%}"]
        for count, rate in rates.items()
    ]


def _assumptions(cores: int) -> str:
    return (
        f"Assumed: machines of {cores} cores like this one at ${DOLLARS_PER_CORE_HOUR:g} per core "
        f"and hour, {8 * NETWORK / 1e9:g} Gbit/s between them, storage that keeps up; {EPOCHS} "
        f"epochs of training in batches of {BATCH:,}, but no fewer than {LEAST_STEPS:,} steps; "
        "features spread over the machines by Beam, all but clustering shared without loss."
    )


def _plan_row(tracks: int, shares: Sequence[Share]) -> list[str]:
    hours, dollars = (sum(getattr(one, name) for one in shares) for name in ("hours", "dollars"))
    return [
        *(f"{tracks:,}", f"{MACHINES[tracks]}"),
        *(_number(one.hours) for one in shares),
        *(_number(hours), _number(dollars), bottleneck(shares)),
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
