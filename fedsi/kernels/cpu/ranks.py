"""Losses and ranks of targets in an evaluation, in slices of the positions.

The logits of a slice fit into a processor's cache, where one pass over them finds everything.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.compiler import compiled
from fedsi.kernels.cpu.bits import from_ordered, to_ordered
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.output import SLICE, forth
from fedsi.kernels.cpu.packing import Asked
from fedsi.kernels.cpu.softmax import exponential
from fedsi.kernels.cpu.workspace import Workspace
from fedsi.tasks.task import RankedTargets

Array = NDArray[Any]


def ranked_by_layer(
    layer: tuple[Tensor, Tensor],
    features: Tensor,
    targets: Tensor,
    products: Products,
    space: Workspace,
) -> RankedTargets:
    """Return targets with their losses and ranks under an output layer.

    Args:
        layer: Weight and bias, as ``output_parameters`` returns.
        features: ``[targets, features]``.
        targets: Token ids, ``[targets]``.
        products: Matrix products.
        space: Scratch memory.
    """
    weight, bias = layer
    found = _unranked(targets)
    size = max(1, SLICE // len(bias))
    for a in range(0, len(targets), size):
        part = slice(a, min(a + size, len(targets)))
        logits = space.take("logits", part.stop - a, len(bias))
        forth(products, logits, features[part], weight)
        rank_targets(
            logits.numpy(), bias.numpy(), found.targets[part], found.losses[part], found.ranks[part]
        )
    return found


def ranked_batches(
    layer: tuple[Tensor, Tensor],
    features: Tensor,
    parts: Sequence[tuple[slice, Asked]],
    products: Products,
    space: Workspace,
) -> list[RankedTargets]:
    """Return the targets of each batch with their losses and ranks, computed in one pass.

    Args:
        layer: As for ``ranked_by_layer``.
        features: ``[positions, features]``.
        parts: The positions and the targets of each batch.
        products: Matrix products.
        space: Scratch memory.
    """
    asked = [
        features[rows] if one.places is None else features[rows][one.places] for rows, one in parts
    ]
    targets = torch.cat([one.targets for _, one in parts])
    found = ranked_by_layer(layer, torch.cat(asked), targets, products, space)
    return found.split([len(rows) for rows in asked])


def ranked_by_logits(logits: Tensor, targets: Tensor) -> RankedTargets:
    """Return targets with their losses and ranks.

    Args:
        logits: ``[targets, vocabulary]``.
        targets: Token ids, ``[targets]``.
    """
    found = _unranked(targets)
    rows, bias = logits.contiguous().numpy(), logits.new_zeros(logits.shape[1]).numpy()
    rank_targets(rows, bias, found.targets, found.losses, found.ranks)
    return found


def _unranked(targets: Tensor) -> RankedTargets:
    return RankedTargets(targets.numpy(), np.empty(len(targets)), np.empty(len(targets), np.int64))


@compiled
def rank_targets(
    logits: Array,
    bias: Array,
    targets: NDArray[np.int64],
    losses: NDArray[np.float64],
    ranks: NDArray[np.int64],
) -> None:
    """Find the loss and the rank of each target.

    Args:
        logits: Logits without the bias, ``[targets, words]``.
        bias: ``[words]``.
        targets: Token ids, ``[targets]``.
        losses: Output: cross-entropy in nats, ``[targets]``.
        ranks: Output: ranks as in ``RankedTargets``, ``[targets]``.
    """
    zero, one = logits.dtype.type(0), logits.dtype.type(1)
    for i in range(len(logits)):
        row, target = logits[i], targets[i]
        ordered = to_ordered(row[0] + bias[0])
        for j in range(len(row)):
            ordered = max(ordered, to_ordered(row[j] + bias[j]))
        most, at_target = from_ordered(ordered), row[target] + bias[target]
        # Floats, because the compiler vectorises their sums; whole numbers of this size are exact.
        above, total = zero, zero
        for j in range(target):
            above += one if row[j] + bias[j] >= at_target else zero
        for j in range(target + 1, len(row)):
            above += one if row[j] + bias[j] > at_target else zero
        for j in range(len(row)):
            total += exponential(row[j] + bias[j] - most)
        losses[i] = math.log(total) + (np.float64(most) - np.float64(at_target))
        ranks[i] = len(row) if np.isnan(losses[i]) else np.int64(above)
