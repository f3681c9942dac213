"""Batches without padding, so that what treats each position alike is one matrix product.

For a recurrence rows are sorted by length and positions laid out time step by time step: at time
step t only the sequences that have a target there are still running, and because the longest come
first they are the first rows, so each step works on the head of the step before. For attention
positions are laid out sentence by sentence.
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


@dataclass(frozen=True)
class PackedSentences:
    """A batch sentence by sentence; positions are those of ``PackedBatch`` in another order."""

    inputs: Tensor
    """Token ids, ``[positions]``."""
    targets: Tensor
    """Token ids, ``[positions]``."""
    starts: NDArray[np.int64]
    """The first position of each sentence, and one past the last: ``[sentences + 1]``."""
    places: Tensor
    """How many tokens of its sentence come before each position, ``[positions]``."""

    @property
    def longest(self) -> int:
        """Length of the longest sentence."""
        return int(np.diff(self.starts).max())


def pack_sentences(batch: Tokens) -> PackedSentences:
    """Pack a batch of the protocol's rows; sentences keep their order, those without target go.

    Args:
        batch: ``[batch, time + 1]``, at least one target.
    """
    running = batch[:, 1:] != PAD
    lengths = running.sum(axis=1)
    starts = np.concatenate([[0], np.cumsum(lengths[lengths > 0])])
    places = np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))
    return PackedSentences(
        inputs=torch.from_numpy(batch[:, :-1][running].astype(np.int64)),
        targets=torch.from_numpy(batch[:, 1:][running].astype(np.int64)),
        starts=starts,
        places=torch.from_numpy(places),
    )
