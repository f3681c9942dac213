"""Scores of an output layer's rows for one state: exact ones, and cheap ones by 8-bit integers.

Rows are 8-bit integers with a scale each, in panels of ``LANES`` rows; a state is 16-bit integers
with one scale, kept as two halves of 8 bits. The cheap score of row i is::

    scale_i * scale * sum_j row_ij * state_j + bias_i
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.compiler import compiled
from fedsi.kernels.cpu.int8_tiles import LANES, fast_panel_products
from fedsi.kernels.cpu.tiles import INNER_COLUMNS, INNER_ROWS, inner_tile

Array = NDArray[Any]

BLOCK = 64
"""Panels whose sums are kept at a time."""
HALF = 256
OFFSET = HALF * HALF // 2
"""A 16-bit number is ``HALF * high + low - OFFSET``, with halves from 0 to 255."""


@compiled
def exact_scores(scores: Array, weight: Array, bias: Array, state: Array) -> None:
    """Write ``weight @ state + bias``; a row's bits do not depend on its neighbours.

    Args:
        scores: float32 ``[rows]``.
        weight: float32 ``[rows, size]``, contiguous.
        bias: float32 ``[rows]``.
        state: float32 ``[1, size]``, contiguous.
    """
    tile = np.empty((INNER_ROWS, INNER_COLUMNS), weight.dtype)
    for first in range(0, len(weight), INNER_ROWS):
        number = min(INNER_ROWS, len(weight) - first)
        inner_tile(tile, weight[first:], state, number, 0)
        for r in range(number):
            scores[first + r] = tile[r, 0] + bias[first + r]


@compiled
def exact_scores_of(scores: Array, ids: Array, weight: Array, bias: Array, state: Array) -> None:
    """Write the same scores for the rows with some ids, int64 ``[number]``, only."""
    tile = np.empty((INNER_ROWS, INNER_COLUMNS), weight.dtype)
    for k in range(len(ids)):
        row = ids[k]
        inner_tile(tile, weight[row:], state, 1, 0)
        scores[k] = tile[0, 0] + bias[row]


@compiled
def highest(ids: Array, kept: Array, scores: Array, first: int) -> int:
    """Keep the highest scores, sorted; of equal ones the lower id comes first.

    Args:
        ids: Written: int64 ``[most]``.
        kept: Written: the scores of these ids, ``[most]``.
        scores: float32 ``[rows]``; those of -inf are never kept.
        first: The first row that counts.

    Returns:
        The number kept; fewer than ``most`` if there are fewer rows.
    """
    number = 0
    least = np.float32(-np.inf)
    for start in range(first, len(scores), LANES):
        some = scores[start : start + LANES]
        above = np.int32(0)
        for k in range(len(some)):
            above |= np.int32(some[k] > least)
        if not above:
            continue
        for k in range(len(some)):
            if some[k] > least:
                number = _keep(ids, kept, number, start + k, some[k])
                least = kept[0] if number == len(ids) else least
    _sort(ids, kept, number)
    return number


@compiled
def highest_of(ids: Array, kept: Array, rows: Array, scores: Array) -> int:
    """Keep the highest of some rows, int64 ``[number]``, with their scores; as ``highest``."""
    number = 0
    for k in range(len(rows)):
        if number < len(ids) or scores[k] >= kept[0]:
            number = _keep(ids, kept, number, rows[k], scores[k])
    _sort(ids, kept, number)
    return number


@compiled
def quantise_vector(halves: Array, vector: Array) -> Any:
    """Round a vector to 16-bit integers and write their halves; return the scale, float32.

    Args:
        halves: The upper and the lower ones, uint8, at least ``[2, size]``, with zeros behind.
        vector: float32 ``[size]``.
    """
    largest = np.float32(0)
    for number in vector:
        largest = max(largest, abs(number))
    scale = largest / np.float32(OFFSET - 1) if largest > 0 else np.float32(1)
    for k in range(len(vector)):
        rounded = np.int64(np.rint(vector[k] / scale)) + OFFSET
        halves[0, k], halves[1, k] = rounded // HALF, rounded % HALF
    return scale


@compiled
def cheap_scores(
    scores: Array, panels: Array, offsets: Array, rows: Array, halves: Array, scale: Any
) -> None:
    """Write the cheap scores of all rows.

    Args:
        scores: float32 ``[rows]``; the number of rows is a multiple of ``LANES``.
        panels: int32 ``[panels, steps, LANES]``: four bytes each.
        offsets: ``HALF / 2`` times the sum of each row's numbers, int32 ``[rows]``.
        rows: Scales and biases, float32 ``[2, rows]``.
        halves: The state's upper and lower halves, int32 ``[2, steps]``, four bytes each.
        scale: The state's scale, float32.
    """
    sums = np.empty((2, BLOCK, LANES), np.int32)
    for panel in range(0, len(panels), BLOCK):
        some = panels[panel : panel + BLOCK]
        start, stop = panel * LANES, (panel + len(some)) * LANES
        fast_panel_products(sums[0], sums[1], some, halves[0], halves[1])
        _scale(
            scores[start:stop],
            sums[0].ravel(),
            sums[1].ravel(),
            offsets[start:stop],
            rows[:, start:stop],
            scale,
        )


@compiled
def _scale(
    scores: Array, high_sums: Array, low_sums: Array, offsets: Array, rows: Array, scale: Any
) -> None:
    for k in range(len(scores)):
        upper = np.float32(np.int32(high_sums[k] - offsets[k]))
        whole = np.float32(HALF) * upper + np.float32(low_sums[k])
        scores[k] = rows[0, k] * scale * whole + rows[1, k]


@compiled
def rows_above(ids: Array, scores: Array, bounds: Array, factors: Array, least: Any) -> int:
    """List the rows whose exact score may reach a number: ``score + bounds.T @ factors >= least``.

    Args:
        ids: Written: the rows, in order, int64 ``[most]``.
        scores: Cheap scores, float32 ``[rows]``, a multiple of ``LANES``.
        bounds: Terms of each row's bound, float32 ``[4, rows]``.
        factors: Their factors for this state, float32 ``[4]``.
        least: The number, float32.

    Returns:
        The number of rows; if it is above ``most``, only the first ``most`` are listed.
    """
    a, b, c, d = factors
    number = 0
    above = np.empty(LANES, np.bool_)
    for start in range(0, len(scores), LANES):
        found = np.int32(0)
        for lane in range(LANES):
            k = start + lane
            bound = bounds[0, k] * a + bounds[1, k] * b + bounds[2, k] * c + bounds[3, k] * d
            above[lane] = scores[k] + bound >= least
            found |= np.int32(above[lane])
        if found:
            for lane in range(LANES):
                if above[lane]:
                    if number < len(ids):
                        ids[number] = start + lane
                    number += 1
    return number


@compiled
def _keep(ids: Array, kept: Array, number: int, row: int, score: Any) -> int:
    """Add a row to a heap whose first entry is the lowest; replace that one if the heap is full."""
    if number < len(ids):
        place = number
        number += 1
        while place > 0:
            parent = (place - 1) // 2
            if not _below(score, row, kept[parent], ids[parent]):
                break
            kept[place], ids[place] = kept[parent], ids[parent]
            place = parent
        kept[place], ids[place] = score, row
    elif _below(kept[0], ids[0], score, row):
        _sink(ids, kept, number, row, score)
    return number


@compiled
def _sink(ids: Array, kept: Array, number: int, row: int, score: Any) -> None:
    """Put a row in the place of the heap's first entry, and restore the order."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= number:
            break
        if child + 1 < number and _below(kept[child + 1], ids[child + 1], kept[child], ids[child]):
            child += 1
        if not _below(kept[child], ids[child], score, row):
            break
        kept[place], ids[place] = kept[child], ids[child]
        place = child
    kept[place], ids[place] = score, row


@compiled
def _sort(ids: Array, kept: Array, number: int) -> None:
    """Sort a heap, the highest first."""
    for last in range(number - 1, 0, -1):
        score, row = kept[last], ids[last]
        kept[last], ids[last] = kept[0], ids[0]
        _sink(ids, kept, last, row, score)


@compiled
def _below(score: Any, row: int, other: Any, other_row: int) -> bool:
    """Whether a row comes after another one."""
    return score < other or (score == other and row > other_row)
