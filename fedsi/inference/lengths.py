"""Evaluation at sequence lengths other than that of training.

A sentence of the protocol is a list of pairs (input, target): ``(bos, w1), (w1, w2), ...`` up to
``(wn, eos)``. A client's sentences are packed in their order: a sequence takes whole sentences
while their pairs fit. A sentence that is longer than a sequence, which happens only below the
length of training, is cut. So every length asks for the same targets, each with all of its sentence
before it; longer sequences add the sentences before that. The model meets no token that it was not
trained on: as in training ``bos`` stands before each sentence's first word and is never a target,
and ``eos`` is never an input.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fedsi.data.protocol import PAD, Tokens
from fedsi.learning.predictions import predictions
from fedsi.models.model import Model
from fedsi.models.parameters import Parameters
from fedsi.tasks.task import Batch, Counts, Task

POSITIONS = 1280
"""Positions of a batch, as in evaluation sentence by sentence: 64 sequences of 20."""


def fill_sequences(task: Task, examples: Tokens, length: int) -> Batch:
    """Pack a client's sentences.

    Args:
        task: The task.
        examples: ``[examples, time + 1]``, rows of the protocol.
        length: Pairs of a sequence.

    Returns:
        ``[sequences, longest]``, the longest being at most the length asked for.
    """
    pieces = list(_pieces(task.batch(examples), length))
    places = _places([len(piece) for piece in pieces], length)
    count = 1 + max((row for row, _ in places), default=-1)
    ends = [start + len(piece) for piece, (_, start) in zip(pieces, places, strict=True)]
    packed = np.full((2, count, max(ends, default=0)), PAD, dtype=np.int32)
    for piece, (row, start) in zip(pieces, places, strict=True):
        packed[:, row, start : start + len(piece)] = piece.T
    return Batch(*packed)


def _pieces(batch: Batch, length: int) -> Iterator[Tokens]:
    """Yield each sentence's pairs, ``[pairs, 2]``, cut where they are more than a sequence's."""
    for asked, *pair in zip(batch.asked, batch.inputs, batch.targets, strict=True):
        pairs = np.stack(pair, -1)[asked]
        for start in range(0, len(pairs), length):
            yield pairs[start : start + length]


def _places(sizes: list[int], length: int) -> list[tuple[int, int]]:
    """Return the sequence of each piece and its start in it."""
    places = []
    row, filled = 0, 0
    for size in sizes:
        if filled + size > length:
            row, filled = row + 1, 0
        places.append((row, filled))
        filled += size
    return places


def evaluate_sequences(
    task: Task,
    model: Model,
    parameters: Parameters,
    sequences: Batch,
    unigram: Tensor,
    trained_length: int,
) -> tuple[Counts, Counts]:
    """Count what a task counts of a client's packed sentences.

    Args:
        task: The task.
        model: The model's functions.
        parameters: Named tensors without client axis.
        sequences: What ``fill_sequences`` returned.
        unigram: Log probability of each id under the unigram model, float64 ``[vocabulary]``.
        trained_length: Positions of a sequence in training.

    Returns:
        Counts over all targets, and over those at positions that no sequence in training had.

    Raises:
        UserError: The sequences are longer than the model's learned positions.
    """
    whole, beyond = np.zeros((2, len(task.columns)))
    longest = sequences.inputs.shape[1]
    step = max(1, POSITIONS // max(1, longest))
    with torch.inference_mode():
        for start in range(0, len(sequences), step):
            rows = slice(start, start + step)
            batch = Batch(sequences.inputs[rows], sequences.targets[rows])
            outputs, _ = predictions(model, parameters, batch)
            whole += task.counts(outputs, batch, unigram)
            later = np.arange(longest) >= trained_length
            far = Batch(batch.inputs, np.where(later, batch.targets, PAD))
            asked_far = torch.from_numpy(far.asked[batch.asked])
            beyond += task.counts(outputs[asked_far], far, unigram)
    return whole, beyond
