"""Embeddings on disk, in shards that several processes write and a killed run need not redo.

The embed stage writes shards of consecutive tracks, each atomically and with a fingerprint of what
it was made from, and then merges them into one file such as `latents.npz`.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax import files
from vae_jax.errors import UserError

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
        Of all tracks, [N].
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

    def remove(self) -> None:
        """Remove the folder and every shard in it, whatever it was made from."""
        for path in self.folder.glob(f"{self.folder.name}-*-of-*.npz"):
            path.unlink()
        with contextlib.suppress(OSError):  # it is absent, or holds what others put there
            self.folder.rmdir()
