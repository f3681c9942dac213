"""Batches without padding, so that work done alike for each position is one matrix product.

A position is an input token up to the last one of its sequence that has a target. For a recurrence,
sequences are sorted by length, longest first, and positions are laid out time step by time step.
The sequences still running at time step t are then the first rows of the step before, so each step
works on the head of the previous one. For attention, positions are laid out sentence by sentence.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.data.protocol import PAD, Tokens
from fedsi.tasks.task import Batch


@dataclass(frozen=True)
class Asked:
    """The targets of a batch's positions."""

    targets: Tensor
    """Token ids, ``[targets]``."""
    places: Tensor | None
    """The position of each target, ``[targets]``; None if every position has one."""


@dataclass(frozen=True)
class PackedBatch:
    """A batch laid out time step by time step."""

    inputs: Tensor
    """Token ids, ``[positions]``."""
    asked: Asked
    sizes: NDArray[np.int64]
    """Number of sequences running at each time step, non-increasing: ``[time]``."""
    before: Tensor
    """Position of the same sequence in the previous time step, for each position from the second
    time step on: ``[positions - sizes[0]]``."""


def pack_batch(batch: Batch) -> PackedBatch:
    """Pack a batch; sequences of equal length keep their order.

    Args:
        batch: A batch with at least one target.
    """
    lengths = _lengths(batch)
    order = np.argsort(-lengths, kind="stable")
    longest = int(lengths.max())
    running = np.arange(longest)[:, None] < lengths[order]
    inputs, targets = (
        tokens[order, :longest].T[running] for tokens in (batch.inputs, batch.targets)
    )
    sizes = running.sum(axis=1)
    before = np.arange(sizes[0], sizes.sum()) - np.repeat(sizes[:-1], sizes[1:])
    return PackedBatch(
        inputs=torch.from_numpy(inputs.astype(np.int64)),
        asked=_asked(targets),
        sizes=sizes,
        before=torch.from_numpy(before),
    )


@dataclass(frozen=True)
class PackedSentences:
    """A batch laid out sentence by sentence: the positions of ``PackedBatch`` in another order."""

    inputs: Tensor
    """Token ids, ``[positions]``."""
    asked: Asked
    starts: NDArray[np.int64]
    """First position of each sentence and, last, the number of positions: ``[sentences + 1]``."""
    places: Tensor
    """Number of tokens before each position in its sentence, ``[positions]``."""

    @property
    def longest(self) -> int:
        """Length of the longest sentence."""
        return int(np.diff(self.starts).max())


def pack_sentences(batch: Batch) -> PackedSentences:
    """Pack a batch; sentences keep their order, and those without targets are dropped.

    Args:
        batch: A batch with at least one target.
    """
    lengths = _lengths(batch)
    running = np.arange(batch.inputs.shape[1]) < lengths[:, None]
    starts = np.concatenate([[0], np.cumsum(lengths[lengths > 0])])
    places = np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))
    return PackedSentences(
        inputs=torch.from_numpy(batch.inputs[running].astype(np.int64)),
        asked=_asked(batch.targets[running]),
        starts=starts,
        places=torch.from_numpy(places),
    )


def _lengths(batch: Batch) -> NDArray[np.int64]:
    """Return the number of positions of each sequence, up to its last target: ``[batch]``."""
    backwards = batch.asked[:, ::-1]
    after_last = backwards.argmax(axis=1)
    return np.where(backwards.any(axis=1), backwards.shape[1] - after_last, 0)


def _asked(targets: Tokens) -> Asked:
    """Return the targets among some positions, ``[positions]``."""
    places = np.flatnonzero(targets != PAD)
    if len(places) == len(targets):
        return Asked(torch.from_numpy(targets.astype(np.int64)), None)
    return Asked(torch.from_numpy(targets[places].astype(np.int64)), torch.from_numpy(places))
