"""Exact sums of many clients' updates on the device that trained them.

They are the operations of ``fedsi.sums.updates`` and ``fedsi.sums.clipping`` in PyTorch's. The sums
are integers, so no order of additions can change them. Lanes are added one after another, which
needs memory for one of them.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.limits import FRACTION_BITS
from fedsi.sums.clipping import MARGIN

ONE = 2.0**FRACTION_BITS


def add_lanes(
    start: Tensor, trained: Tensor, weights: Tensor, limit: float, sums: Tensor
) -> Tensor:
    """Add ``weight * (trained - start)`` of each lane that is within the limit.

    Args:
        start: The global parameters, float32 ``[parameters]``.
        trained: The clients' parameters, float32 ``[lanes, parameters]``.
        weights: float32, ``[lanes]``.
        limit: Largest magnitude that may be added.
        sums: Fixed point, int64 ``[parameters]``.

    Returns:
        Whether each lane was added, ``[lanes]``; one with an entry that is above the limit or not a
        number was not.
    """
    accepted = []
    for lane, weight in zip(trained, weights, strict=True):
        value = (lane - start) * weight
        within = (value.abs() <= limit).all()  # false for NaN
        value = torch.where(within, value, 0.0).double()
        sums += (value * ONE).round().long()
        accepted.append(within)
    return torch.stack(accepted)


def add_clipped_lanes(
    start: Tensor, trained: Tensor, ends: NDArray[np.int64], clip_norm: float, sums: Tensor
) -> tuple[Tensor, Tensor]:
    """Clip ``trained - start`` of each lane and add it, as ``add_clipped`` does for one client.

    Args:
        start: As for ``add_lanes``.
        trained: As for ``add_lanes``.
        ends: The result of ``layer_ends``.
        clip_norm: The clip norm S.
        sums: As for ``add_lanes``.

    Returns:
        The norms before clipping, float64 ``[lanes]``, not finite for a lane that was not added;
        and whether any layer of it was clipped.
    """
    limit = clip_norm / math.sqrt(len(ends))
    sizes = torch.from_numpy(ends).diff(prepend=torch.zeros(1, dtype=torch.int64)).tolist()
    norms, clipped = [], []
    for lane in trained:
        layers = (lane - start).double().split(sizes)
        lengths = torch.stack([(layer * layer).sum() for layer in layers]).sqrt()
        norm = torch.linalg.vector_norm(lengths)
        finite = norm.isfinite()
        beyond = lengths * (1.0 + MARGIN) > limit
        factors = torch.where(beyond, limit / lengths * (1.0 - MARGIN), 1.0)
        scaled = [layer * factor for layer, factor in zip(layers, factors, strict=True)]
        # A conversion to an integer rounds towards zero.
        sums += (torch.where(finite, torch.cat(scaled), 0.0) * ONE).long()
        norms.append(norm)
        clipped.append(beyond.any() & finite)
    return torch.stack(norms), torch.stack(clipped)
