"""Training: the MLP and the conv2d VAE on data that stays on the device, against PyTorch."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import synthetic
from benchmarks.measure import Line, Task, Timing, compared, has, race
from vae_jax.config import get_config, to_dict
from vae_jax.records import reader

NUM_SEEDS = 8
PRODUCTS = "its matrix products by BLAS"


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes
    ----------
    size
        Frames and mel bands of the conv2d VAE's segments.
    seconds
        Training time before reconstructions are compared.
    """

    rows: int = 10_000
    mlp_steps: int = 1000
    segments: int = 1024
    size: int = 128
    channels: tuple[int, ...] = (32, 64, 128, 256)
    conv_steps: int = 5
    slow_steps: int = 2
    seconds: float = 60.0
    repeats: int = 5


TINY = Sizes(
    rows=200, mlp_steps=4, segments=80, size=8, channels=(2,), conv_steps=1, slow_steps=1,
    seconds=0.2, repeats=1,
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A model, its data and its training."""

    directory: Path
    feature: Mapping[str, Any]
    model: Mapping[str, Any]
    batch_size: int
    steps: int
    num_seeds: int = 1

    def config(self) -> dict[str, Any]:
        """Return the whole config."""
        config = get_config()
        config.num_seeds = self.num_seeds
        config.feature.update(self.feature)
        config.model.update(self.model)
        config.train.update(
            batch_size=self.batch_size, num_steps=10**6, log_every=self.steps, warmup_steps=0
        )
        return to_dict(config)


def measure(sizes: Sizes) -> Iterator[Line]:
    """Yield the lines of this topic."""
    with tempfile.TemporaryDirectory() as name:
        yield from _mlp(_mlp_setting(Path(name) / "vectors", sizes), sizes)
        yield from _conv2d(_conv_setting(Path(name) / "frames", sizes), sizes)


def _mlp_setting(directory: Path, sizes: Sizes) -> Setting:
    model = {"name": "mlp", "hidden_dims": (256, 128), "latent_dim": 16}
    setting = Setting(directory, {"name": "mfcc", "n_mfcc": 30}, model, 128, sizes.mlp_steps)
    synthetic.write_records(directory, setting.config()["feature"], sizes.rows)
    return setting


def _conv_setting(directory: Path, sizes: Sizes) -> Setting:
    model = {
        "name": "conv2d",
        "channels": sizes.channels,
        "latent_dim": 32,
        "kernel_size": 3,
        "segment_frames": sizes.size,
    }
    feature = {"name": "logmelspec", "n_mels": sizes.size, "n_mfcc": 1}
    setting = Setting(directory, feature, model, 32, sizes.conv_steps)
    synthetic.write_records(directory, setting.config()["feature"], sizes.segments, sizes.size)
    return setting


def _mlp(setting: Setting, sizes: Sizes) -> Iterator[Line]:
    variants = ("eager", "fused", "compiled") if has("torch") else ()
    tasks = {"vae_jax": Task(ours, (setting,))}
    tasks |= {f"torch {variant}": Task(peer, (setting, variant)) for variant in variants}
    tasks[PRODUCTS] = Task(products, (setting,))
    timings = race(tasks, sizes.repeats)
    for variant, goals in (("eager", {"ratio": 2.5}), ("fused", {"ratio": 1.5}), ("compiled", {})):
        yield _line(f"MLP VAE 60-256-128-16, batch {setting.batch_size}", setting, timings,
                    f"torch {variant}", goals, bound=PRODUCTS)  # fmt: skip
    yield _compilations("MLP VAE: compilations after the first dispatch", timings)
    tasks = {
        "seeds at once": Task(ours, (replace(setting, num_seeds=NUM_SEEDS),)),
        "one seed": Task(ours, (setting,)),
    }
    timings = race(tasks, sizes.repeats)
    one = timings["one seed"].median / setting.steps
    rate = setting.steps * NUM_SEEDS / timings["seeds at once"].median
    ratio = NUM_SEEDS * timings["seeds at once"].speed_against(timings["one seed"])
    yield Line(f"MLP VAE: {NUM_SEEDS} seeds at once", rate, "seed-steps/s", 1 / one, "one seed",
               ratio, memory=timings["seeds at once"].memory,
               goals={"ratio": round(NUM_SEEDS / 3, 2)})  # fmt: skip


def _conv2d(setting: Setting, sizes: Sizes) -> Iterator[Line]:
    patched = replace(setting, model={**setting.model, "kernel_size": 2})
    tasks = {"kernel 3": Task(ours, (setting,)), "kernel 2": Task(ours, (patched,))}
    if has("torch"):
        tasks["torch channels-last"] = Task(peer, (setting, "fused"))
    timings = race(tasks, sizes.repeats)
    shape = f"{sizes.size} x {sizes.size}, batch {setting.batch_size}"
    yield _line(f"conv2d VAE, the same model, {shape}", setting, timings,
                "torch channels-last", {"ratio": 0.5}, "kernel 3")  # fmt: skip
    yield _line(f"conv2d VAE, the default (2 x 2 patches), {shape}", setting, timings,
                "torch channels-last", {"ratio": 1.3}, "kernel 2")  # fmt: skip
    slow = replace(setting, steps=sizes.slow_steps)
    tasks = {"vae_jax": Task(bare, (slow,)), "nn.ConvTranspose": Task(transposed, (slow,))}
    yield _line("conv2d VAE, convolution + depth to space", slow,
                race(tasks, min(sizes.repeats, 3)), "nn.ConvTranspose", {"ratio": 4.0})  # fmt: skip
    yield from _reconstruction(patched, sizes)


def _reconstruction(setting: Setting, sizes: Sizes) -> Iterator[Line]:
    """Compare the reconstructions of held-out segments after equal training time."""
    arguments = (setting, sizes.seconds)
    tasks = {"vae_jax": Task(our_error, arguments)}
    if has("torch"):
        tasks["torch channels-last"] = Task(peer_error, arguments)
    errors = {name: timing.results[0] for name, timing in race(tasks, 1).items()}
    other = errors.get("torch channels-last")
    yield Line(
        f"1 / squared error after {sizes.seconds:g} s, the default against the conv2d VAE",
        *(1 / errors["vae_jax"], ""),
        peer=1 / other if other else None,
        peer_name="torch channels-last" if other else "",
        ratio=other / errors["vae_jax"] if other else None,
        goals={"ratio": 1.0},
    )


def _line(
    what: str,
    setting: Setting,
    timings: Mapping[str, Timing],
    peer_name: str,
    goals: Mapping[str, float],
    mine: str = "vae_jax",
    bound: str | None = None,
) -> Line:
    rates = (what, setting.steps, "steps/s", timings, mine)
    return compared(*rates, peer=peer_name, bound=bound, goals=goals)


def _compilations(what: str, timings: Mapping[str, Timing]) -> Line:
    return Line(what, sum(timings["vae_jax"].results), "compilations", goals={"ours": 0})


def ours(setting: Setting) -> Callable[[], int]:
    """Return training by `vae_jax.train`; each call returns how often something was compiled."""
    import jax

    compiled: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    run, _ = _program(setting)

    def count() -> int:
        before = len(compiled)
        run()
        return len(compiled) - before

    return count


def our_error(setting: Setting, seconds: float) -> Callable[[], float]:
    """Return training for some time, from scratch, and the squared error that is reached."""
    run, error = _program(setting)
    return _until(run, error, seconds)


def _program(setting: Setting) -> tuple[Callable[[], None], Callable[[], float]]:
    """Return some steps of training, and the squared error of held-out tracks."""
    from vae_jax.parallel import devices
    from vae_jax.training import train
    from vae_jax.training.input_pipeline import Source
    from vae_jax.training.model_spec import ModelSpec

    devices.use_cores(setting.num_seeds)
    stored = reader.Records(setting.directory)
    program = train.prepare(Source(stored), ModelSpec.of(setting.config(), stored, []))
    state, step = program.state, 0

    def run() -> None:
        nonlocal state, step
        state, _ = program.train_steps(state, step, step + setting.steps)
        step += setting.steps

    return run, lambda: program.evaluate(state.params)["squared_error"].item()


def bare(setting: Setting, model: Any = None) -> Callable[[], None]:
    """Return the jitted steps alone."""
    import jax
    import jax.numpy as jnp

    from vae_jax.training.input_pipeline import Source
    from vae_jax.training.model_spec import ModelSpec
    from vae_jax.training.objective import (
        OBJECTIVE_KEYS,
        Objective,
        init_state,
        make_optimizer,
        run_steps,
    )

    stored, config = reader.Records(setting.directory), setting.config()
    source = Source(stored)
    default, view = ModelSpec.of(config, stored, []).build()
    objective = Objective(
        model or default, view, *(config["model"][name] for name in OBJECTIVE_KEYS)
    )
    optimizer = make_optimizer(config["train"])
    init = partial(init_state, objective, optimizer)
    steps = partial(run_steps, objective, optimizer)
    key = jax.random.key(0)
    first = np.zeros(1, np.int32)
    state = jax.jit(init)(key, source.load(first) | {"position": first})
    resident = jax.device_put(source.load(np.arange(len(source))))
    rng = np.random.default_rng(0)
    shape = (setting.steps, setting.batch_size)
    batches = {"position": jnp.asarray(rng.integers(0, len(source), shape, np.int32))}
    program, count = jax.jit(steps, donate_argnums=0), jnp.int32(setting.steps)

    def run() -> None:
        nonlocal state
        state, metrics = program(state, key, resident, batches, count)
        jax.block_until_ready(metrics)

    return run


def transposed(setting: Setting) -> Callable[[], None]:
    """Return the jitted steps of the conv2d VAE with `nn.ConvTranspose` in its decoder."""
    import jax
    from flax import linen as nn

    from vae_jax.models import priors
    from vae_jax.models.conv2d import Encoder
    from vae_jax.models.vae import Vae

    model = setting.config()["model"]
    channels: Sequence[int] = tuple(model["channels"])
    small = model["segment_frames"] // 2 ** len(channels)

    class Decoder(nn.Module):
        @nn.compact
        def __call__(self, z: jax.Array) -> jax.Array:
            x = nn.Dense(small * small * channels[-1])(z).reshape(len(z), small, small, -1)
            for width in (*reversed(channels[:-1]), 1):
                x = nn.silu(nn.LayerNorm()(x))
                x = nn.ConvTranspose(width, (3, 3), (2, 2))(x)
            return x[..., 0]

    encoder = Encoder(channels, 3, 2 * model["latent_dim"], "float32")
    options = {key: model[key] for key in ("learned_scale", "deterministic", "input_noise")}
    vae = Vae(encoder, Decoder(), priors.build(model), **options)
    return bare(setting, vae)


def products(setting: Setting) -> Callable[[], None]:
    """Return the matrix products of the MLP's steps, forwards and backwards, by BLAS alone."""
    model, batch_size = setting.model, setting.batch_size
    input_dim = 2 * setting.feature["n_mfcc"]
    encoder = (input_dim, *model["hidden_dims"], 2 * model["latent_dim"])
    decoder = (model["latent_dim"], *reversed(model["hidden_dims"]), input_dim)
    shapes = [*pairwise(encoder), *pairwise(decoder)]
    layers = [
        (np.ones((batch_size, n), np.float32), np.ones((n, m), np.float32),
         np.ones((batch_size, m), np.float32))
        for n, m in shapes
    ]  # fmt: skip

    def run() -> None:
        for _ in range(setting.steps):
            for x, weights, gradient in layers:
                np.matmul(x, weights)
                np.matmul(x.T, gradient)
            for _, weights, gradient in layers[1:]:  # the input needs no gradient
                np.matmul(gradient, weights.T)

    return run


def peer(setting: Setting, variant: str) -> Callable[[], None]:
    """Return training by PyTorch."""
    step, _ = _torch_program(setting, variant)

    def run() -> None:
        for _ in range(setting.steps):
            step()

    return run


def peer_error(setting: Setting, seconds: float) -> Callable[[], float]:
    """Return training by PyTorch for some time, and the squared error that is reached."""
    return _until(*_torch_program(setting, "fused"), seconds)


def _torch_program(
    setting: Setting, variant: str
) -> tuple[Callable[[], None], Callable[[], float]]:
    import torch

    from benchmarks import torch_peers
    from vae_jax.training.input_pipeline import split

    config = setting.config()
    stored, model = reader.Records(setting.directory), config["model"]
    known = stored.statistics["features"]
    data = np.stack(stored.load(np.arange(len(stored)))["features"]).astype(np.float32)
    data = ((data - known.mean) / known.std).astype(np.float32)
    if model["name"] == "mlp":
        vae = torch_peers.mlp(
            data.shape[1], model["hidden_dims"], model["latent_dim"], model["input_noise"]
        )
    else:
        data = data[:, None]
        vae = torch_peers.conv2d(
            data.shape[-1], model["channels"], model["latent_dim"], model["input_noise"]
        )
    training, validation = split(stored.ids, config["train"]["validation_fraction"])
    rate = config["train"]["learning_rate"]
    step = torch_peers.stepper(vae, data[training], setting.batch_size, rate, variant)
    held_out = torch.from_numpy(data[validation])
    return step, lambda: vae.squared_error(held_out)


def _until(
    run: Callable[[], None], error: Callable[[], float], seconds: float
) -> Callable[[], float]:
    """Return a function that trains for so long in all, however often it is called."""
    run()
    error()  # compiled before the clock starts
    spent = 0.0

    def train_and_evaluate() -> float:
        nonlocal spent
        while spent < seconds:
            started = time.perf_counter()
            run()
            spent += time.perf_counter() - started
        return error()

    return train_and_evaluate
