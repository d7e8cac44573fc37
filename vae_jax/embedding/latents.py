"""Embeddings on disk: one file such as `latents.npz`, or a folder of shards such as `latents/`.

The embed stage writes `Shards` of consecutive tracks, each atomically and with a fingerprint of
what it was made from, so that several processes share the work and a killed run need not redo it;
then it merges them, unless `config.embed.format` is "sharded". `Latents` reads either.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.errors import UserError
from vae_jax.storage import files

MADE_FROM = "made_from"


@dataclass(frozen=True)
class Shards:
    """Files `<name>-00003-of-00064.npz` in a folder of that name, of consecutive tracks each.

    Which tracks are in which shard depends on their number alone, not on who writes it.

    Attributes
    ----------
    folder
        Holds nothing else.
    ids
        The ids of all tracks, [N].
    size
        Tracks in a shard; the last may have fewer.
    made_from
        A fingerprint; shards of another one count as missing.
    """

    folder: Path
    ids: np.ndarray
    size: int
    made_from: str

    def __len__(self) -> int:
        return -(-len(self.ids) // self.size)

    def path(self, shard: int) -> Path:
        """Return a shard's file."""
        return self.folder / f"{self.folder.name}-{shard:05d}-of-{len(self):05d}.npz"

    def positions(self, shard: int) -> np.ndarray:
        """Return the positions of a shard's tracks among all, int32."""
        start = shard * self.size
        return np.arange(start, min(start + self.size, len(self.ids)), dtype=np.int32)

    def is_finished(self, shard: int) -> bool:
        """Say whether a shard is there, whole, and made from the same."""
        try:
            arrays = files.read_npz(self.path(shard))
        except UserError:
            return False
        if arrays.get(MADE_FROM) != self.made_from or "ids" not in arrays:
            return False
        return np.array_equal(arrays["ids"], self.ids[self.positions(shard)])

    def write(self, shard: int, **arrays: Any) -> None:
        """Write a shard's arrays, [n, ...] each."""
        ids, made_from = self.ids[self.positions(shard)], np.array(self.made_from)
        files.write_npz(self.path(shard), ids=ids, **arrays, made_from=made_from)

    def read(self, shard: int) -> dict[str, np.ndarray]:
        """Read a shard's arrays and its ids."""
        arrays = files.read_npz(self.path(shard))
        del arrays[MADE_FROM]
        return arrays

    def merge(self, path: Path) -> None:
        """Write all shards as one file."""
        parts = [self.read(shard) for shard in range(len(self))]
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        files.write_npz(path, **arrays)

    def remove(self, keep_these: bool = False) -> None:
        """Remove all shards in the folder, or only those that are not this object's."""
        kept = {self.path(shard) for shard in range(len(self))} if keep_these else set()
        for path in {*self.folder.glob(f"{self.folder.name}-*-of-*.npz")} - kept:
            path.unlink()
        with contextlib.suppress(OSError):  # it is absent, or not empty
            self.folder.rmdir()


class Latents:
    """An embedding, [N, L] float32, read as chunks: the whole of a file, or shard after shard.

    Attributes
    ----------
    path
        The file, or the folder.
    model
        Which of several models, trained together with other seeds; the best one if None.
    ids
        The ids of all tracks, [N]. Nothing else in a folder is held in memory.
    dim
        L.
    num_models
        The number of models.

    Raises
    ------
    UserError
        Here or on reading, if anything is missing, damaged or not finite.
    """

    def __init__(self, path: Path, model: int | None = None) -> None:
        self.path, self.is_sharded, self._model = path, path.suffix != ".npz", model
        self._paths = _shards_in(path) if self.is_sharded else [path]
        self._read = functools.lru_cache(maxsize=1)(_read_arrays)  # a single file is read once
        first = self._read(self._paths[0])
        self.dim = first["latents"].shape[1]
        self.num_models = first["seed_latents"].shape[1] if "seed_latents" in first else 1
        self.ids = np.concatenate([files.read_npz(path, "ids")["ids"] for path in self._paths])

    def __len__(self) -> int:
        return len(self.ids)

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the points of consecutive tracks, [n, L]."""
        yield from self._of_model("latents", "seed_latents")

    def spans(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the points of consecutive tracks, [n, L], each with the position of its first."""
        start = 0
        for chunk in self.chunks():
            yield start, chunk
            start += len(chunk)

    @property
    def has_assignments(self) -> bool:
        """Whether the model's prior is a mixture."""
        return "assignments" in self._read(self._paths[0])

    def assignments(self) -> Iterator[np.ndarray]:
        """Yield the probabilities of the mixture's components for consecutive tracks, [n, K]."""
        yield from self._of_model("assignments", "seed_assignments")

    def _of_model(self, best: str, of_all: str) -> Iterator[np.ndarray]:
        """Yield an array of the best model, or of the chosen one, [n, ...]."""
        for path in self._paths:
            arrays = self._read(path)
            is_chosen = self._model is not None and self.num_models > 1
            if is_chosen and of_all not in arrays:
                raise UserError(f"{path} lacks {of_all}: run --stage=embed again.")
            yield arrays[of_all][:, self._model] if is_chosen else arrays[best]

    def held(self, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return positions [M] and points [M, L] to hold in memory.

        A file is held whole. From shards at most `size` tracks are taken at random, in order.
        """
        if not self.is_sharded or len(self) <= size:
            return np.arange(len(self)), np.concatenate([*self.chunks()])
        positions = np.sort(np.random.default_rng(seed).choice(len(self), size, replace=False))
        points = []
        for start, chunk in self.spans():
            first, last = np.searchsorted(positions, (start, start + len(chunk)))
            points.append(chunk[positions[first:last] - start])
        return positions, np.concatenate(points)


def _shards_in(folder: Path) -> list[Path]:
    """Return the shards in a folder, which must be all that their names promise."""
    paths = sorted(folder.glob(f"{folder.name}-*-of-*.npz"))
    if not paths:
        raise UserError(f"{folder} does not exist: run --stage=embed first.")
    promised = int(paths[-1].stem.rpartition("-")[2])
    if len(paths) != promised:
        raise UserError(
            f"{folder} holds {len(paths)} of {promised} shards: run --stage=embed again."
        )
    return paths


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = files.read_npz(path)
    if not {"ids", "latents"} <= arrays.keys() or len(arrays["ids"]) != len(arrays["latents"]):
        raise UserError(f"{path} is damaged: it lacks ids or latents; delete it and run again.")
    if not np.isfinite(arrays["latents"]).all():
        raise UserError(f"{path} holds values that are not finite: train with other settings.")
    return arrays
