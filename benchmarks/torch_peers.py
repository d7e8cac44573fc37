"""The same VAEs in PyTorch, trained at its best: on a GPU where it finds one."""

import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from vae_jax.parallel.cores import num_cores

CALIBRATION_STEPS = 10


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of [B, C, H, W], which lie last in memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Vae(nn.Module):
    """`vae_jax.models.vae.Vae`: learned scale, noise on the input, one posterior sample."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, input_noise: float) -> None:
        super().__init__()
        self.encoder, self.decoder, self.input_noise = encoder, decoder, input_noise
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the negative ELBO per example."""
        noisy = x + self.input_noise * torch.randn_like(x)
        mean, log_variance = self.encoder(noisy).chunk(2, dim=-1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        error = (x - self.decoder(z)) * torch.exp(-self.log_scale)
        nats = 0.5 * (error.square() + math.log(2 * math.pi)) + self.log_scale
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        return nats.flatten(1).sum(1).mean() + kl.sum(1).mean()

    @torch.no_grad()
    def squared_error(self, x: torch.Tensor) -> float:
        """Return the mean squared error of the reconstruction from one posterior sample."""
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return float((x - self.decoder(z)).square().mean())


def mlp(input_dim: int, hidden: Sequence[int], latent_dim: int, input_noise: float) -> Vae:
    """Return the model of `vae_jax.models.mlp`."""
    encoder = _dense((input_dim, *hidden, 2 * latent_dim))
    return Vae(encoder, _dense((latent_dim, *reversed(hidden), input_dim)), input_noise)


def conv2d(size: int, channels: Sequence[int], latent_dim: int, input_noise: float) -> Vae:
    """Return the model of `vae_jax.models.conv2d` with kernels of 3, for [B, 1, size, size]."""
    small = size // 2 ** len(channels)
    encoder: list[nn.Module] = []
    for inputs, outputs in pairwise((1, *channels)):
        encoder += [nn.Conv2d(inputs, outputs, 3, 2, 1), ChannelNorm(outputs), nn.SiLU()]
    encoder += [nn.Flatten(), nn.Linear(channels[-1] * small**2, 2 * latent_dim)]
    decoder: list[nn.Module] = [
        nn.Linear(latent_dim, channels[-1] * small**2),
        nn.Unflatten(1, (channels[-1], small, small)),
    ]
    for inputs, outputs in pairwise((*reversed(channels), 1)):
        decoder += [ChannelNorm(inputs), nn.SiLU()]
        decoder += [nn.Conv2d(inputs, 4 * outputs, 3, 1, 1), nn.PixelShuffle(2)]
    model = Vae(nn.Sequential(*encoder), nn.Sequential(*decoder), input_noise)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def stepper(
    model: Vae,
    data: np.ndarray,
    batch_size: int,
    learning_rate: float,
    variant: str,
    dtype: str = "float32",
) -> Callable[[], None]:
    """Return one training step; on a CPU at the thread count that is best for it here.

    `variant` is "eager", "fused" (AdamW in one kernel) or "compiled" (by torch.compile, fused; on a
    GPU with CUDA graphs).
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = torch.from_numpy(data).to(device)
    model = model.to(device)
    if inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    fused = None if variant == "eager" else True
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=1e-4, fused=fused)
    mode = "reduce-overhead" if device.type == "cuda" else None
    forward: Any = torch.compile(model, mode=mode) if variant == "compiled" else model
    half = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")

    def step() -> None:
        x = inputs[torch.randint(len(inputs), (batch_size,), device=device)]
        optimizer.zero_grad()
        with half:
            loss = forward(x)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    if device.type == "cpu":
        times = {threads: _calibrate(step, threads) for threads in _thread_counts()}
        torch.set_num_threads(min(times, key=lambda threads: times[threads]))
    return step


def seconds_of(step: Callable[[], None], count: int) -> float:
    """Return the time of one of so many steps, after as many that warm up."""
    for _ in range(2):
        started = time.perf_counter()
        for _ in range(count):
            step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - started) / count
    return seconds


def _thread_counts() -> list[int]:
    cores = num_cores()
    return sorted({cores, *(2**i for i in range(8) if 2**i < cores)})


def _calibrate(step: Callable[[], None], threads: int) -> float:
    torch.set_num_threads(threads)
    step()
    started = time.perf_counter()
    for _ in range(CALIBRATION_STEPS):
        step()
    return time.perf_counter() - started


def _dense(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
