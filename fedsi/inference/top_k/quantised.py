"""Rows as 8-bit integers with a scale each, and their scores for a vector of 16-bit integers."""

import numpy as np

from fedsi.inference.top_k.exact import empty
from fedsi.inference.top_k.layer import Array
from fedsi.kernels.cpu.int8_rows import HALF, cheap_scores, highest, quantise_vector
from fedsi.kernels.cpu.int8_tiles import GROUP, LANES

LARGEST = 127


class QuantisedRows:
    """Rows rounded to ``scale_i * q_ij`` with integers q of at most 127.

    Args:
        rows: ``[rows, size]``.
        bias: Added to the scores, ``[rows]``.
    """

    def __init__(self, rows: Array, bias: Array) -> None:
        count, size = rows.shape
        padded, wide = -(-count // LANES) * LANES, -(-size // GROUP) * GROUP
        scales = np.abs(rows).max(axis=1) / LARGEST
        scales = np.where(scales > 0, scales, 1.0).astype(np.float32).astype(np.float64)
        numbers = np.zeros((padded, wide), np.int8)
        numbers[:count, :size] = np.rint(rows / scales[:, None])
        self.errors = np.linalg.norm(rows - scales[:, None] * numbers[:count, :size], axis=1)
        """Norms of what rounding changed, float64 ``[rows]``."""
        self._panels = _panels(numbers)
        self._offsets = (HALF // 2 * numbers.sum(axis=1, dtype=np.int64)).astype(np.int32)
        self._rows = np.zeros((2, padded), np.float32)
        self._rows[:, :count] = scales, bias
        self._rows[1, count:] = -np.inf
        self._scores = np.empty(padded, np.float32)
        self._halves = np.zeros((2, wide // GROUP), np.int32)

    @property
    def bytes_read(self) -> int:
        """Bytes that the scores of all rows need."""
        return sum(part.nbytes for part in (self._panels, self._offsets, self._rows))

    @property
    def scores(self) -> Array:
        """The last scores, float32, with -inf for the rows that fill the last panel."""
        return self._scores

    def highest(self, vector: Array, count: int, first: int) -> tuple[Array, Array]:
        """Compute all scores and return the ids and scores of the highest.

        Args:
            vector: float32 ``[size]``.
            count: How many.
            first: The first row that counts.
        """
        scale = quantise_vector(self._halves.view(np.uint8), vector)
        cheap_scores(self._scores, self._panels, self._offsets, self._rows, self._halves, scale)
        ids, kept = empty(count)
        number = highest(ids, kept, self._scores, first)
        return ids[:number], kept[:number]

    def rounded_rows(self) -> Array:
        """Return the rounded rows, float64, with those that fill the last panel."""
        panels, steps, _ = self._panels.shape
        numbers = self._panels.view(np.int8).reshape(panels, steps, LANES, GROUP)
        flat = numbers.transpose(0, 2, 1, 3).reshape(panels * LANES, steps * GROUP)
        return self._rows[0, :, None].astype(np.float64) * flat


def _panels(numbers: Array) -> Array:
    """Lay out ``[rows, size]`` bytes for the kernel, int32 ``[panels, steps, LANES]``."""
    rows, size = numbers.shape
    apart = numbers.reshape(rows // LANES, LANES, size // GROUP, GROUP).transpose(0, 2, 1, 3)
    flat = np.ascontiguousarray(apart).reshape(rows // LANES, size // GROUP, LANES * GROUP)
    return flat.view(np.int32)
