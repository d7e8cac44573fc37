"""Measures a GPU or TPU (or this CPU): spectra, training, scaling over devices, and input.

python -m benchmarks.accelerator [--tiny] [--profile=DIR]

Bounds are measured on the same device: a bf16 matrix product, and copying memory. `--profile`
writes a trace of conv2d training for TensorBoard.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import flops, synthetic
from benchmarks.measure import Line, machine, table
from vae_jax.config import get_config, to_dict
from vae_jax.features import spectral
from vae_jax.parallel import devices
from vae_jax.records import reader
from vae_jax.training import train
from vae_jax.training.input_pipeline import Source
from vae_jax.training.model_spec import ModelSpec
from vae_jax.training.objective import (
    OBJECTIVE_KEYS,
    Objective,
    init_state,
    make_optimizer,
    run_steps,
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes
    ----------
    matmul
        Rows and columns of the product that measures the peak.
    copy
        Floats of the copy that measures the bandwidth.
    """

    matmul: int = 8192
    copy: int = 2**28
    clips: int = 64
    seconds: float = 30.0
    tracks: int = 4096
    frames: int = 128
    bands: int = 128
    channels: tuple[int, ...] = (32, 64, 128, 256)
    mlp_batch: int = 4096
    conv_batch: int = 512
    steps: int = 20
    repeats: int = 5


TINY = Sizes(
    matmul=64, copy=1024, clips=2, seconds=1.0, tracks=32, frames=8, bands=8, channels=(2,),
    mlp_batch=8, conv_batch=8, steps=2, repeats=1,
)  # fmt: skip


def measure(sizes: Sizes, profile: Path | None = None) -> Iterator[Line]:
    """Yield all lines."""
    peak, bandwidth = matmul_peak(sizes), copy_bandwidth(sizes)
    yield Line("bf16 matrix product, the peak", peak / 1e12, "TFLOP/s")
    yield Line("copying memory, the bandwidth", bandwidth / 1e9, "GB/s")
    yield from _spectra(sizes, bandwidth)
    with tempfile.TemporaryDirectory() as name:
        vectors, frames = Path(name) / "vectors", Path(name) / "frames"
        for directory, model, dtype, batch in (
            (vectors, "mlp", "float32", sizes.mlp_batch),
            (frames, "conv2d", "float32", sizes.conv_batch),
            (frames, "conv2d", "bfloat16", sizes.conv_batch),
        ):
            config = _config(sizes, model, dtype, batch)
            if not directory.exists():
                count = sizes.frames if model == "conv2d" else 0
                synthetic.write_records(directory, config["feature"], sizes.tracks, count)
            yield from _training(directory, config, sizes, peak)
            yield _input(directory, config, sizes)
        if profile:
            with jax.profiler.trace(profile):
                training(frames, config, jax.devices(), sizes.steps)[0]()


def seconds_of(run: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a function that returns device arrays, after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))


def matmul_peak(sizes: Sizes) -> float:
    """Return the FLOP/s of a large bf16 matrix product."""
    a = jnp.ones((sizes.matmul, sizes.matmul), jnp.bfloat16)
    return 2 * sizes.matmul**3 / seconds_of(partial(jax.jit(jnp.matmul), a, a), sizes.repeats)


def copy_bandwidth(sizes: Sizes) -> float:
    """Return the bytes per second of reading and writing memory."""
    x = jnp.ones(sizes.copy, jnp.float32)
    return 2 * x.nbytes / seconds_of(partial(jax.jit(lambda x: x + 1), x), sizes.repeats)


def _spectra(sizes: Sizes, bandwidth: float) -> Iterator[Line]:
    spec = spectral.SpectralSpec.of(get_config().feature)
    length = int(sizes.seconds * spec.sample_rate)
    waveforms = jax.random.normal(jax.random.key(0), (sizes.clips, length))
    lengths = jnp.full(sizes.clips, length)
    for function in (spectral.log_mel, spectral.mfcc):
        run = partial(function, waveforms, lengths, spec)
        moved = waveforms.nbytes + run().nbytes
        audio = sizes.clips * sizes.seconds
        yield Line(
            f"{function.__name__}, batch {sizes.clips} of {sizes.seconds:g} s",
            *(audio / seconds_of(run, sizes.repeats), "s of audio/s"),
            bound=audio * bandwidth / moved,
            bound_name="reading waveforms and writing spectra",
            goals={"fraction": 0.5},
        )


def _config(sizes: Sizes, model: str, dtype: str, batch_size: int) -> dict[str, Any]:
    config = get_config()
    config.feature.update(
        name="logmelspec" if model == "conv2d" else "mfcc", n_mels=sizes.bands, n_mfcc=8
    )
    config.model.update(
        name=model, dtype=dtype, channels=sizes.channels, segment_frames=sizes.frames
    )
    config.train.update(batch_size=batch_size, num_steps=10**6, log_every=sizes.steps)
    return to_dict(config)


def training(
    directory: Path, config: dict[str, Any], chosen: list[Any], steps: int
) -> tuple[Callable[[], Any], int]:
    """Return the jitted steps over the given devices, and the FLOPs of all their products."""
    stored = reader.Records(directory)
    source, model_spec = Source(stored), ModelSpec.of(config, stored, [])
    objective = Objective(*model_spec.build(), *(config["model"][name] for name in OBJECTIVE_KEYS))
    optimizer, mesh = make_optimizer(config["train"]), devices.make_mesh(chosen)
    whole, key, first = devices.whole(mesh), jax.random.key(0), np.zeros(1, np.int32)
    key, resident = jax.device_put((key, source.load(np.arange(len(source)))), whole)
    init = jax.jit(partial(init_state, objective, optimizer), out_shardings=whole)
    state = init(key, source.load(first) | {"position": first})
    size = config["train"]["batch_size"] // len(chosen) * len(chosen)
    rng = np.random.default_rng(0)
    positions = rng.integers(0, len(source), (steps, size), np.int32)
    batches = devices.place_batches(mesh, {"position": positions}, None)
    count = jax.device_put(np.int32(steps), whole)
    program = jax.jit(
        partial(run_steps, objective, optimizer), donate_argnums=0, out_shardings=whole
    )

    def run() -> Any:
        nonlocal state
        state, metrics = program(state, key, resident, batches, count)
        return metrics

    def loss(params: Any, batch: Any) -> jax.Array:
        terms, _ = objective.terms(params, key, resident, batch)
        return objective.metrics(terms, jnp.ones(size))["loss"]

    return run, steps * flops.count(jax.grad(loss), state.params, {"position": positions[0]})


def _training(directory: Path, config: dict[str, Any], sizes: Sizes, peak: float) -> Iterator[Line]:
    model, size = config["model"], config["train"]["batch_size"]
    devices = jax.devices()
    run, operations = training(directory, config, devices[:1], sizes.steps)
    seconds = seconds_of(run, sizes.repeats)
    what = f"train {model['name']} in {model['dtype']}, batch {size}"
    is_goal = model["name"] == "conv2d" and model["dtype"] == "bfloat16"
    yield Line(
        what,
        *(sizes.steps * size / seconds, "examples/s"),
        bound=sizes.steps * size * peak / operations,
        bound_name="the bf16 peak",
        goals={"fraction": 0.35} if is_goal else {},
    )
    if len(devices) > 1:
        larger = {**config, "train": {**config["train"], "batch_size": size * len(devices)}}
        together = seconds_of(training(directory, larger, devices, sizes.steps)[0], sizes.repeats)
        yield Line(
            f"{what} on each of {len(devices)} devices",
            *(sizes.steps * size * len(devices) / together, "examples/s"),
            bound=sizes.steps * size * len(devices) / seconds,
            bound_name="as many alone",
            goals={"fraction": 0.9},
        )


def _input(directory: Path, config: dict[str, Any], sizes: Sizes) -> Line:
    """Compare training that streams its features with training that has them on the device."""
    stored = reader.Records(directory)
    rates = {}
    for name, gib in (("streamed", 0.0), ("resident", 1000.0)):
        settings = {**config, "train": {**config["train"], "resident_gib": gib}}
        program = train.prepare(Source(stored), ModelSpec.of(settings, stored, []))
        state, times = program.state, []
        for repeat in range(sizes.repeats + 1):
            started = time.perf_counter()
            begin = repeat * sizes.steps
            state, _ = program.train_steps(state, begin, begin + sizes.steps)
            times.append(time.perf_counter() - started)
        rates[name] = sizes.steps * config["train"]["batch_size"] / float(np.median(times[1:]))
    limited = "compute" if rates["streamed"] >= 0.9 * rates["resident"] else "input"
    model = config["model"]
    return Line(
        f"{model['name']} in {model['dtype']}, features streamed from files: {limited}-bound",
        *(rates["streamed"], "examples/s"),
        bound=rates["resident"],
        bound_name="features on the device",
        goals={"fraction": 0.9},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="see whether it runs")
    parser.add_argument("--profile", type=Path, help="folder for a trace")
    arguments = parser.parse_args()
    devices = jax.devices()
    print(f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}); {machine()}")
    lines = []
    for line in measure(TINY if arguments.tiny else Sizes(), arguments.profile):
        lines.append(line)
        print("  " + " | ".join(cell for cell in line.cells() if cell), flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
