"""Cuts rows out of stored frames, without reading the rest of each track.

Training on segments of spectrograms takes a twentieth of a track at a time.
`training.input_pipeline` cuts them here when the features do not fit the device.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from vae_jax.parallel.cores import num_cores
from vae_jax.records.reader import Records

UNSEEN = -1  # where the values of a record lie that was not verified yet
MIN_PART = 256  # tracks that are worth a thread


class Slices:
    """Reads rows of tracks, from records that are verified when they are first touched.

    From then on a record's checksum, which is one for all of it, is not looked at again.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._places = {name: np.full(len(records), UNSEEN) for name in records.arrays}
        self._pool = ThreadPoolExecutor(num_cores())

    def load(self, positions: np.ndarray, starts: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """Return the arrays of n tracks by name, stacked, of frames `size` rows, [n, size, ...].

        Parameters
        ----------
        positions
            Which tracks, [n].
        starts
            The first row of each, [n]. A track's first row follows its last one.

        Raises
        ------
        DamagedRecord
            If a record is missing, cut short, fails its checksum, or is of another track.
        """
        self._verify(positions)
        arrays = {}
        for name, spec in self._records.arrays.items():
            shape = (size if rows is None else rows for rows in spec.shape)
            arrays[name] = np.empty((len(positions), *shape), spec.dtype)
            first, counts = np.zeros(len(positions), np.int64), np.ones(len(positions), np.int64)
            if None in spec.shape:
                first[:], counts[:] = starts, self._records.num_frames[positions]
            content = arrays[name].reshape(len(positions), -1).view(np.uint8)
            width = content.shape[1] // (size if None in spec.shape else 1)
            columns = (content, positions, self._places[name][positions], first, counts)
            pieces = max(1, len(positions) // MIN_PART)
            parts = (np.array_split(column, pieces) for column in columns)
            for _ in self._pool.map(partial(self._copy, width), *parts):
                pass
        return arrays

    def _verify(self, positions: np.ndarray) -> None:
        """Find where the values of tracks lie, once for each."""
        some = next(iter(self._places.values()))
        for part in self._records.parts(np.unique(positions[some[positions] == UNSEEN])):
            for name, places in self._records.locate(part).items():
                self._places[name][part] = places

    def _copy(
        self,
        width: int,
        into: np.ndarray,
        positions: np.ndarray,
        places: np.ndarray,
        starts: np.ndarray,
        counts: np.ndarray,
    ) -> None:
        """Copy n tracks' rows, of `width` bytes each, into [n, bytes]; 0 where there are none."""
        size = into.shape[1]
        begin, whole = places + starts * width, counts * width
        end = begin + size
        is_whole = end <= places + whole
        columns = (positions, begin, end, is_whole)
        for row, (track, first, last, fits) in zip(
            into, zip(*(column.tolist() for column in columns), strict=True), strict=True
        ):
            if fits:
                row[:] = self._records.bytes_of(track)[first:last]
        into[counts == 0] = 0
        for i in np.flatnonzero(~is_whole & (counts > 0)):
            wrapped = (starts[i] + np.arange(size // width)) % counts[i]
            values = self._records.bytes_of(positions[i])[places[i] : places[i] + whole[i]]
            into[i] = values.reshape(-1, width)[wrapped].ravel()
