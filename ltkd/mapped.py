"""Images that stay in a file of bytes until they are asked for."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


class MappedImages:
    """Some rows of a file of decoded images, read when they are asked for.

    It has the shape, length and indexing of an array uint8 (N, 3, S, S); indexing gives plain
    arrays. The map is opened for one access at a time, because the operating system counts every
    page that was read to the process for as long as it is open.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, path: Path, rows: np.ndarray, size: int):
        self.path, self.rows, self.size = path, np.asarray(rows, np.int64), size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.rows), 3, self.size, self.size

    @property
    def nbytes(self) -> int:
        return len(self.rows) * 3 * self.size**2

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            return self[key[0]][(slice(None),) * (np.ndim(self.rows[key[0]])) + key[1:]]
        rows = self.rows[key]
        stored = np.asarray(np.memmap(self.path, np.uint8, "r"))
        whole = len(stored) // (3 * self.size**2)  # a copy may have been cut off in a row
        stored = stored[: whole * 3 * self.size**2].reshape(whole, 3, self.size, self.size)
        return stored[rows] if rows.ndim else stored[rows].copy()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def where(self, chosen: np.ndarray) -> "MappedImages":
        """The chosen ones of these images, still not read."""
        return MappedImages(self.path, self.rows[chosen], self.size)
