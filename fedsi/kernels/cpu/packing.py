"""Batches without padding, so that work done alike for each position is one matrix product.

A position is an input token up to the last one of its sequence that has a target. For a recurrence,
sequences are sorted by length, longest first, and positions are laid out time step by time step.
The sequences still running at time step t are then the first rows of the step before, so each step
works on the head of the previous one. For attention, positions are laid out sentence by sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class JoinedPart:
    """The positions of one batch in a joined one."""

    rows: slice
    """Its positions in the joined batch, if positions are ordered by batch."""
    sequences: int
    """Number of its sequences, which are its first positions."""
    later: slice
    """Its positions from the second time step on, if only such positions are counted."""
    inputs: Tensor
    """Token ids, ``[positions]``."""
    asked: Asked


@dataclass(frozen=True)
class JoinedBatch:
    """Several batches packed as one.

    The positions of each batch keep the order that they have if the batch is packed alone.
    """

    packed: PackedBatch
    by_batch: Tensor | None
    """The positions ordered by batch, ``[positions]``; None for a single batch."""
    before: Tensor
    """``PackedBatch.before`` ordered by batch."""
    parts: list[JoinedPart]
    """One for each batch."""

    @property
    def asked(self) -> list[tuple[slice, Asked]]:
        """The positions, ordered by batch, and the targets of each batch."""
        return [(part.rows, part.asked) for part in self.parts]


def pack_batch(batch: Batch) -> PackedBatch:
    """Pack a batch; sequences of equal length keep their order.

    Args:
        batch: A batch with at least one target.
    """
    return pack_together([batch]).packed


def pack_together(batches: Sequence[Batch]) -> JoinedBatch:
    """Pack several batches as one; sequences of equal length keep their order.

    Args:
        batches: Batches with at least one target each.
    """
    lengths = np.concatenate([_lengths(batch) for batch in batches])
    order = np.argsort(-lengths, kind="stable")
    longest = int(lengths.max())
    running = np.arange(longest)[:, None] < lengths[order]
    inputs, targets = (
        _stacked(tokens, longest)[order].T[running]
        for tokens in ([b.inputs for b in batches], [b.targets for b in batches])
    )
    sizes = running.sum(axis=1)
    before = np.arange(sizes[0], sizes.sum()) - np.repeat(sizes[:-1], sizes[1:])
    packed = PackedBatch(
        inputs=torch.from_numpy(inputs.astype(np.int64, copy=False)),
        asked=_asked(targets),
        sizes=sizes,
        before=torch.from_numpy(before),
    )
    if len(batches) == 1:
        every, later = slice(0, len(inputs)), slice(0, len(before))
        part = JoinedPart(every, int(sizes[0]), later, packed.inputs, packed.asked)
        return JoinedBatch(packed, None, packed.before, [part])
    sequences = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])[order]
    return _ordered(packed, np.broadcast_to(sequences, running.shape)[running], targets)


def _ordered(
    packed: PackedBatch, owners: NDArray[np.int64], targets: NDArray[np.int64]
) -> JoinedBatch:
    """Order the positions by batch.

    Args:
        packed: The batches packed as one.
        owners: The number of each position's batch, ``[positions]``.
        targets: Token ids, ``[positions]``.
    """
    batches, first = int(owners.max()) + 1, int(packed.sizes[0])
    places = np.argsort(owners, kind="stable")
    later = places[places >= first] - first
    counts = np.bincount(owners, minlength=batches)
    sequences = np.bincount(owners[:first], minlength=batches)
    by_batch = torch.from_numpy(places)
    inputs, asked = packed.inputs[by_batch], targets[places]
    spans = zip(_spans(counts), sequences.tolist(), _spans(counts - sequences), strict=True)
    parts = [
        JoinedPart(rows, number, rest, inputs[rows], _asked(asked[rows]))
        for rows, number, rest in spans
    ]
    return JoinedBatch(packed, by_batch, packed.before[torch.from_numpy(later)], parts)


def _stacked(batches: Sequence[Tokens], time: int) -> NDArray[np.signedinteger[Any]]:
    """Return the first tokens of the sequences of batches, padded: ``[sequences, time]``."""
    if len(batches) == 1:
        return batches[0][:, :time]
    stacked = np.full((sum(map(len, batches)), time), PAD, np.int64)
    first = 0
    for tokens in batches:
        part = tokens[:, :time]
        stacked[first : first + len(part), : part.shape[1]] = part
        first += len(part)
    return stacked


def _spans(counts: NDArray[np.int64]) -> list[slice]:
    """Return consecutive slices of some lengths."""
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts.tolist(), strict=True)]


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


def join_sentences(parts: Sequence[PackedSentences]) -> PackedSentences:
    """Pack several batches as one, one after another; the targets' places are not joined."""
    if len(parts) == 1:
        return parts[0]
    counts = np.cumsum([0, *(len(part.inputs) for part in parts)])
    starts = [part.starts[:-1] + first for part, first in zip(parts, counts, strict=False)]
    return PackedSentences(
        inputs=torch.cat([part.inputs for part in parts]),
        asked=Asked(torch.cat([part.asked.targets for part in parts]), None),
        starts=np.append(np.concatenate(starts), counts[-1]),
        places=torch.cat([part.places for part in parts]),
    )


def _lengths(batch: Batch) -> NDArray[np.int64]:
    """Return the number of positions of each sequence, up to its last target: ``[batch]``."""
    backwards = batch.asked[:, ::-1]
    after_last = backwards.argmax(axis=1)
    return np.where(backwards.any(axis=1), backwards.shape[1] - after_last, 0)


def _asked(targets: NDArray[np.signedinteger[Any]]) -> Asked:
    """Return the targets among some positions, ``[positions]``."""
    places = np.flatnonzero(targets != PAD)
    if len(places) == len(targets):
        return Asked(torch.from_numpy(targets.astype(np.int64)), None)
    return Asked(torch.from_numpy(targets[places].astype(np.int64)), torch.from_numpy(places))
