"""Matrix products of the size of a training step, compiled.

On AMD processors PyTorch's library multiplies float32 matrices with vectors half as wide as newer
ones have, and reads each factor and result once more than a step needs. Here a panel of columns is
copied to the cache, all rows are multiplied with it there, and results are added directly to the
parameters.

``client.products`` may choose PyTorch's products instead (``fedsi.kernels.cpu.product_choice``).
A row of an own product has the same bits whatever the other rows are; one of PyTorch's may not.

Arrays are float32 (float64 in the tests). The functions for pairs round both factors to bfloat16
and add in float32.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.compiler import compiled
from fedsi.errors import UserError
from fedsi.experiment import ClientSettings
from fedsi.kernels.cpu import tiles
from fedsi.kernels.cpu.bits import pair, without_gaps
from fedsi.kernels.cpu.product_choice import TORCH, products_of
from fedsi.kernels.cpu.tiles import (
    COLUMNS,
    ROWS,
    VECTOR_BYTES,
    cross_tile,
    expect_rows,
    is_wide,
    update_tile,
)
from fedsi.kernels.cpu.workspace import Workspace

Array = NDArray[Any]

DEPTH = 1024
"""Numbers (or pairs) of a row that ``inner`` sums at a time. That much of some hundred rows fits
into the cache, where every panel is multiplied with them."""


class Products:
    """The matrix products of a step in one precision, and the layouts their factors need.

    Args:
        settings: The client settings, of which ``precision`` and ``products`` are used;
            ``float32`` stands for the type of the parameters.

    Raises:
        UserError: The processor has no bfloat16 products.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._paired = settings.precision == "bfloat16"
        self._by_torch = products_of(settings) == TORCH
        if self._paired and not tiles.HAS_BFLOAT16:
            raise UserError(
                'client.precision = "bfloat16" needs a processor with AVX-512 BF16, which this one '
                'lacks; set client.precision="float32"'
            )

    def update(
        self, out: Tensor, left: Tensor, right: Tensor, keep: float = 0.0, rate: float = 1.0
    ) -> None:
        """Set ``out = keep * out + rate * left @ right``; see ``update``."""
        if self._by_torch:
            torch.addmm(out, left, right, beta=keep, alpha=rate, out=out)
            return
        function = update_by_pairs if self._paired else update
        target = out.numpy()
        scalar = target.dtype.type
        function(target, left.numpy(), right.numpy(), scalar(keep), scalar(rate))

    def inner(self, out: Tensor, left: Tensor, right: Tensor) -> None:
        """Set ``out = left @ right.T``; rows must be contiguous."""
        if self._by_torch:
            torch.mm(left, right.t(), out=out)
            return
        function = inner_of_pairs if self._paired else inner
        function(out.numpy(), left.numpy(), right.numpy())

    def panels(self, matrix: Tensor, space: Workspace, name: str) -> Array:
        """Return a matrix in the panels that ``update_tile`` reads, ``[panels, depth, COLUMNS]``.

        Args:
            matrix: ``[depth, columns]``.
            space: Scratch memory.
            name: Distinguishes matrices that are in use at the same time.
        """
        source = matrix.numpy()
        depth, columns = source.shape
        count = -(-columns // COLUMNS)
        if self._paired:
            pairs = (
                space.take(f"panels of {name}", count, (depth + 1) // 2, COLUMNS)
                .numpy()
                .view(np.uint32)
            )
            pack_pairs(source, pairs)
            return pairs
        panels: Array = space.take(f"panels of {name}", count, depth, COLUMNS).numpy()
        pack_panels(source, panels)
        return panels

    def rows(self, matrix: Tensor, space: Workspace, name: str) -> Array:
        """Return a matrix as ``inner_tile`` reads it: ``[rows, columns]``, or pairs, half as wide.

        The arguments are those of ``panels``.
        """
        source: Array = matrix.numpy()
        if not self._paired:
            return source
        rows, columns = source.shape
        pairs = space.take(f"pairs of {name}", rows, (columns + 1) // 2).numpy().view(np.uint32)
        pair_rows(source, pairs)
        return pairs


@compiled
def update(out: Array, left: Array, right: Array, keep: Any, rate: Any) -> None:
    """Set ``out = keep * out + rate * left @ right``; if keep is 0, ``out`` may be uninitialised.

    Args:
        out: ``[rows, columns]`` with contiguous rows.
        left: ``[rows, depth]``.
        right: ``[depth, columns]`` with contiguous rows.
        keep: A factor of the type of ``out``.
        rate: A factor of the type of ``out``.
    """
    panel = np.empty((len(right), COLUMNS), right.dtype)
    for first in range(0, out.shape[1], COLUMNS):
        _pack_panel(right[:, first : first + COLUMNS], panel)
        _update_panel(out[:, first : first + COLUMNS], left, panel, keep, rate)


@compiled
def update_by_pairs(out: Array, left: Array, right: Array, keep: Any, rate: Any) -> None:
    """Do the same as ``update`` with both factors rounded to bfloat16."""
    if left.strides[1] == left.itemsize:
        _update_by_pairs(out, _paired(left), right, keep, rate)
        return
    pairs = np.empty(((left.shape[1] + 1) // 2, len(left)), np.uint32)
    _pair_depth(left.T, pairs)
    _update_by_pairs(out, pairs.T, right, keep, rate)


@compiled
def inner(out: Array, left: Array, right: Array) -> None:
    """Set ``out = left @ right.T``; a panel is the transpose of some rows of ``right``.

    Args:
        out: ``[rows, columns]`` with contiguous rows.
        left: ``[rows, depth]``.
        right: ``[columns, depth]`` with contiguous rows.
    """
    one = out.dtype.type(1)
    panel = np.empty((min(DEPTH, left.shape[1]), COLUMNS), right.dtype)
    for first in range(0, left.shape[1], DEPTH):
        rows, columns = left[:, first : first + DEPTH], right[:, first : first + DEPTH]
        keep = one if first else out.dtype.type(0)
        for k in range(0, len(right), COLUMNS):
            _cross_panel(columns[k : k + COLUMNS], panel)
            part = panel[: columns.shape[1]]
            _update_panel(out[:, k : k + COLUMNS], rows, part, keep, one)


@compiled
def inner_of_pairs(out: Array, left: Array, right: Array) -> None:
    """Do the same as ``inner`` with both factors rounded to bfloat16."""
    inner(out, _paired(left), _paired(right))


@compiled
def pack_panels(matrix: Array, panels: Array) -> None:
    """Copy a matrix into panels of ``COLUMNS`` columns; the last one is padded with zeros."""
    for k in range(len(panels)):
        _pack_panel(matrix[:, k * COLUMNS : (k + 1) * COLUMNS], panels[k])


@compiled
def pack_pairs(matrix: Array, panels: Array) -> None:
    """Do the same as ``pack_panels`` with pairs of neighbours in a column."""
    for k in range(len(panels)):
        _pair_panel(matrix[:, k * COLUMNS : (k + 1) * COLUMNS], panels[k])


@compiled
def pair_rows(matrix: Array, pairs: Array) -> None:
    """Write pairs of neighbours in a row, ``[rows, half the columns]``."""
    columns = matrix.shape[1]
    for i in range(len(matrix)):
        row, target = without_gaps(matrix[i]), pairs[i]
        for k in range(columns // 2):
            target[k] = pair(row[2 * k], row[2 * k + 1])
        if columns % 2:
            target[columns // 2] = pair(row[columns - 1], np.float32(0))


@compiled
def _paired(matrix: Array) -> Array:
    pairs = np.empty((len(matrix), (matrix.shape[1] + 1) // 2), np.uint32)
    pair_rows(matrix, pairs)
    return pairs


@compiled
def _update_by_pairs(out: Array, pairs: Array, right: Array, keep: Any, rate: Any) -> None:
    panel = np.empty((pairs.shape[1], COLUMNS), np.uint32)
    for first in range(0, out.shape[1], COLUMNS):
        _pair_panel(right[:, first : first + COLUMNS], panel)
        _update_panel(out[:, first : first + COLUMNS], pairs, panel, keep, rate)


@compiled
def _update_panel(out: Array, rows: Array, panel: Array, keep: Any, rate: Any) -> None:
    if out.shape[1] < COLUMNS:
        _update_ragged_panel(out, rows, panel, keep, rate)
        return
    expect_rows(out, min(ROWS, len(out)))
    for i in range(0, len(out), ROWS):
        n = min(ROWS, len(out) - i)
        expect_rows(out[i + n :], min(ROWS, len(out) - i - n))
        update_tile(out[i:], rows[i:], panel, n, 1, keep, rate)


@compiled
def _update_ragged_panel(out: Array, rows: Array, panel: Array, keep: Any, rate: Any) -> None:
    """Do the same for fewer columns than a tile's, in a tile of their own."""
    width = out.shape[1]
    wide = is_wide(width)
    tile = np.zeros((ROWS, COLUMNS), out.dtype)
    for i in range(0, len(out), ROWS):
        n = min(ROWS, len(out) - i)
        for r in range(n):
            for c in range(width):
                tile[r, c] = out[i + r, c]
        update_tile(tile, rows[i:], panel, n, wide, keep, rate)
        for r in range(n):
            for c in range(width):
                out[i + r, c] = tile[r, c]


@compiled
def _pack_panel(matrix: Array, panel: Array) -> None:
    width = matrix.shape[1]
    for k in range(len(matrix)):
        row, target = without_gaps(matrix[k]), panel[k]
        for j in range(width):
            target[j] = row[j]
        for j in range(width, COLUMNS):
            target[j] = 0


@compiled
def _cross_panel(matrix: Array, panel: Array) -> None:
    """Write the transpose of ``[columns, depth]``; missing columns are filled with zeros."""
    side = VECTOR_BYTES // matrix.itemsize
    columns, depth = matrix.shape
    for i in range(0, columns, side):
        k = 0
        if i + side <= columns:
            while k + side <= depth:
                cross_tile(panel[k:, i:], matrix[i:, k:])
                k += side
        for j in range(i, min(i + side, columns)):
            row = without_gaps(matrix[j])
            for rest in range(k, depth):
                panel[rest, j] = row[rest]
    for k in range(depth):
        for j in range(columns, COLUMNS):
            panel[k, j] = 0


@compiled
def _pair_panel(matrix: Array, panel: Array) -> None:
    _pair_depth(matrix, panel)
    for k in range(len(panel)):
        for j in range(matrix.shape[1], COLUMNS):
            panel[k, j] = 0


@compiled
def _pair_depth(matrix: Array, pairs: Array) -> None:
    """Pair each row with the next one."""
    depth, width = matrix.shape
    for k in range(depth // 2):
        first, second = without_gaps(matrix[2 * k]), without_gaps(matrix[2 * k + 1])
        target = pairs[k]
        for j in range(width):
            target[j] = pair(first[j], second[j])
    if depth % 2:
        for j in range(width):
            pairs[depth // 2, j] = pair(matrix[depth - 1, j], np.float32(0))
