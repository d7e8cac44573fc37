"""Measures a GPU or TPU (or this CPU): spectra, training, scaling over devices, and input.

python -m benchmarks.accelerator [--tiny] [--profile=DIR]

Bounds are measured on the same device: a bf16 matrix product, copying memory, and copying from the
host. PyTorch trains the same models where it is installed. `--profile` writes a trace of conv2d
training for TensorBoard. `benchmarks.startup` measures how long each config takes to start.
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
from benchmarks.measure import Line, has, machine, table
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
    track_frames: int = 1292  # 30 s
    channels: tuple[int, ...] = (32, 64, 128, 256)
    wide: tuple[int, ...] = (128, 256, 512, 1024)
    mlp_batch: int = 4096
    conv_batch: int = 512
    steps: int = 20
    repeats: int = 5


TINY = Sizes(
    matmul=64, copy=1024, clips=2, seconds=1.0, tracks=32, frames=8, bands=8, track_frames=20,
    channels=(2,), wide=(4,), mlp_batch=8, conv_batch=8, steps=2, repeats=1,
)  # fmt: skip


def measure(sizes: Sizes, profile: Path | None = None) -> Iterator[Line]:
    """Yield all lines."""
    peak, bandwidth = matmul_peak(sizes), copy_bandwidth(sizes)
    yield Line("bf16 matrix product, the peak", peak / 1e12, "TFLOP/s")
    yield Line("copying memory, the bandwidth", bandwidth / 1e9, "GB/s")
    yield from _spectra(sizes, bandwidth)
    link = link_bandwidth(sizes)
    yield Line("copying from the host, pageable memory", link / 1e9, "GB/s")
    with tempfile.TemporaryDirectory() as name:
        vectors, segments, tracks = (
            Path(name) / kind for kind in ("vectors", "segments", "tracks")
        )
        mlp = _config(sizes, "mlp", sizes.mlp_batch)
        synthetic.write_records(vectors, mlp["feature"], sizes.tracks)
        yield from _training(vectors, mlp, sizes, peak)
        yield _input(vectors, mlp, sizes, link)
        conv2d = partial(_config, sizes, "conv2d", sizes.conv_batch)
        feature = conv2d()["feature"]
        synthetic.write_records(segments, feature, sizes.tracks, sizes.frames)
        for config in (
            conv2d(kernel_size=2),
            conv2d(kernel_size=2, dtype="bfloat16"),
            conv2d(kernel_size=3),
            conv2d(kernel_size=3, dtype="bfloat16"),
            conv2d(kernel_size=2, dtype="bfloat16", channels=sizes.wide),
            conv2d(kernel_size=3, dtype="bfloat16", channels=sizes.wide),
        ):
            yield from _training(segments, config, sizes, peak)
        synthetic.write_records(tracks, feature, sizes.tracks, sizes.track_frames)
        config = conv2d(kernel_size=2, dtype="bfloat16")
        yield _input(tracks, config, sizes, link)
        if profile:
            with jax.profiler.trace(profile):
                training(segments, config, jax.devices(), sizes.steps)[0]()


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


def link_bandwidth(sizes: Sizes) -> float:
    """Return the bytes per second that the host can send to a device."""
    x = np.ones(sizes.copy // 4, np.float32)
    return x.nbytes / seconds_of(lambda: jax.device_put(x, may_alias=False), sizes.repeats)


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


def _config(sizes: Sizes, name: str, batch_size: int, **model: Any) -> dict[str, Any]:
    config = get_config()
    config.feature.update(
        name="logmelspec" if name == "conv2d" else "mfcc", n_mels=sizes.bands, n_mfcc=8
    )
    config.model.update(name=name, channels=sizes.channels, segment_frames=sizes.frames)
    config.model.update(model)
    config.train.update(batch_size=batch_size, num_steps=10**6, log_every=sizes.steps)
    return to_dict(config)


def _title(model: dict[str, Any]) -> str:
    if model["name"] == "mlp":
        return f"mlp in {model['dtype']}"
    size = model["kernel_size"]
    widths = f"{model['channels'][0]} to {model['channels'][-1]} channels"
    return f"conv2d {size} x {size} in {model['dtype']}, {widths}"


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
    what = f"train {_title(model)}, batch {size}"
    rate = sizes.steps * size / seconds
    torch = _torch_rate(directory, config, sizes)
    yield Line(
        f"{what}: {operations / seconds / 1e12:.3g} TFLOP/s",
        *(rate, "examples/s"),
        *(torch, "torch" if torch else "", rate / torch if torch else None),
        bound=sizes.steps * size * peak / operations,
        bound_name="the bf16 peak",
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


def _torch_rate(directory: Path, config: dict[str, Any], sizes: Sizes) -> float | None:
    """Return how many examples per second PyTorch trains on, at its best; None where it is not."""
    if not has("torch"):
        return None
    from benchmarks import torch_peers

    stored, model, size = reader.Records(directory), config["model"], config["train"]["batch_size"]
    data = np.stack(stored.load(np.arange(len(stored)))["features"]).astype(np.float32)
    if model["name"] == "mlp":
        sizes_of = (data.shape[1], model["hidden_dims"])
        vae = torch_peers.mlp(*sizes_of, model["latent_dim"], model["input_noise"])
    else:
        sizes_of, data = (data.shape[-1], model["channels"]), data[:, None]
        vae = torch_peers.conv2d(*sizes_of, model["latent_dim"], model["input_noise"])
    best = 0.0
    for variant in ("fused", "compiled"):
        arguments = (vae, data, size, 1e-3, variant, model["dtype"])
        seconds = torch_peers.seconds_of(torch_peers.stepper(*arguments), sizes.steps)
        best = max(best, size / seconds)
    return best


def _input(directory: Path, config: dict[str, Any], sizes: Sizes, link: float) -> Line:
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
    sent = link / stored.bytes_of_rows(config["model"]["segment_frames"])
    bound, bound_name = min((rates["resident"], "features on the device"), (sent, "the link"))
    return Line(
        f"train {_title(config['model'])}, streamed from files",
        *(rates["streamed"], "examples/s"),
        bound=bound,
        bound_name=bound_name,
        goals={"fraction": 0.5},
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
