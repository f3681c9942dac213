"""Batches without padding: rows sorted by length, positions laid out time step by time step.

At time step t only the sequences that have a target there are still running, and because the
longest come first they are the first rows. So everything that is not recurrent is one matrix
product over all positions, and each step of the recurrence works on the head of the step before.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.data.protocol import PAD, Tokens


@dataclass(frozen=True)
class PackedBatch:
    """A batch; a position is an input token whose following token is a target."""

    inputs: Tensor
    """Token ids, ``[positions]``."""
    targets: Tensor
    """Token ids, ``[positions]``."""
    sizes: NDArray[np.int64]
    """Sequences that are running at each time step, never growing: ``[time]``."""
    before: Tensor
    """For each position from the second time step on, the position of its sequence in the time step
    before: ``[positions - sizes[0]]``."""


def pack(batch: Tokens) -> PackedBatch:
    """Pack a batch of the protocol's rows; sequences of equal length keep their order.

    Args:
        batch: ``[batch, time + 1]``, at least one target.
    """
    running = batch[:, 1:] != PAD
    lengths = running.sum(axis=1)
    order = np.argsort(-lengths, kind="stable")
    longest = int(lengths.max())
    ordered = batch[order, : longest + 1].T.astype(np.int64)
    running = np.arange(longest)[:, None] < lengths[order]
    sizes = running.sum(axis=1)
    before = np.arange(sizes[0], sizes.sum()) - np.repeat(sizes[:-1], sizes[1:])
    return PackedBatch(
        inputs=torch.from_numpy(ordered[:-1][running]),
        targets=torch.from_numpy(ordered[1:][running]),
        sizes=sizes,
        before=torch.from_numpy(before),
    )
