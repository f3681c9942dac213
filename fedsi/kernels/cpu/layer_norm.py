"""Layer norms over rows and their gradients, compiled.

Arrays are float32 (float64 in the tests). The equation is in
``fedsi.models.transformer.layer_norm``.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.compiler import compiled
from fedsi.models.layers import SMALLEST_SQUARE

Array = NDArray[Any]


@compiled
def normalise(
    x: Array, scale: Array, shift: Array, normal: Array, inverse: Array, out: Array
) -> None:
    """Centre rows, divide them by their standard deviation, then scale and shift them.

    Args:
        x: ``[rows, size]``.
        scale: ``[size]``, or empty for neither scale nor shift.
        shift: ``[size]``, or empty.
        normal: Output: the rows before scale and shift, ``[rows, size]``.
        inverse: Output: the inverse standard deviations, ``[rows]``.
        out: Output unless ``scale`` is empty, ``[rows, size]``.
    """
    size = x.shape[1]
    kind = x.dtype.type
    for i in range(len(x)):
        row, result = x[i], normal[i]
        total = kind(0)
        for j in range(size):
            total += row[j]
        mean = total / kind(size)
        square = kind(0)
        for j in range(size):
            result[j] = row[j] - mean
            square += result[j] * result[j]
        factor = kind(1) / np.sqrt(max(square / kind(size), kind(SMALLEST_SQUARE)))
        inverse[i] = factor
        for j in range(size):
            result[j] *= factor
        if len(scale):
            target = out[i]
            for j in range(size):
                target[j] = result[j] * scale[j] + shift[j]


@compiled
def undo_normalise(
    grad_out: Array,
    scale: Array,
    normal: Array,
    inverse: Array,
    grad: Array,
    ends: Array,
    grad_scale: Array,
    grad_shift: Array,
) -> None:
    """Backpropagate through ``normalise``, adding to the gradient of its input.

    Args:
        grad_out: Gradient with respect to the result, ``[rows, size]``; overwritten.
        scale: Same as in ``normalise``, which writes ``normal`` and ``inverse``.
        normal: ``[rows, size]``.
        inverse: ``[rows]``.
        grad: Accumulated: gradient with respect to x, ``[rows, size]``.
        ends: One past the last row of each batch, ``[batches]``.
        grad_scale: Output unless ``scale`` is empty, ``[batches, size]``.
        grad_shift: Output unless ``scale`` is empty, ``[batches, size]``.
    """
    size = grad.shape[1]
    kind = grad.dtype.type
    largest = kind(1) / np.sqrt(kind(SMALLEST_SQUARE))
    grad_scale[:] = 0
    grad_shift[:] = 0
    batch = 0
    for i in range(len(grad)):
        while i == ends[batch]:
            batch += 1
        above, row, target = grad_out[i], normal[i], grad[i]
        if len(scale):
            to_scale, to_shift = grad_scale[batch], grad_shift[batch]
            for j in range(size):
                to_scale[j] += above[j] * row[j]
                to_shift[j] += above[j]
                above[j] *= scale[j]
        total, inner = kind(0), kind(0)
        for j in range(size):
            total += above[j]
            inner += above[j] * row[j]
        mean = total / kind(size)
        # A clamped standard deviation does not depend on the row.
        along = inner / kind(size) if inverse[i] < largest else kind(0)
        for j in range(size):
            target[j] += inverse[i] * (above[j] - mean - row[j] * along)
