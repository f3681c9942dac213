"""Evaluation at sequence lengths other than the training length.

A sentence of the protocol is a list of pairs (input, target): ``(bos, w1), (w1, w2), ...`` up to
``(wn, eos)``. A client's sentences are packed in order: a sequence takes whole sentences while
their pairs fit. A sentence longer than a sequence, which occurs only below the training length, is
split. So every length has the same targets, each preceded by all of its sentence; longer sequences
add the sentences before it. No token appears in a role that it did not have in training: ``bos``
precedes each sentence's first word and is never a target, and ``eos`` is never an input.
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
"""Positions per batch, as in evaluation sentence by sentence: 64 sequences of 20."""


def fill_sequences(task: Task, examples: Tokens, length: int) -> Batch:
    """Pack a client's sentences into sequences.

    Args:
        task: The task.
        examples: ``[examples, time + 1]``, rows of the protocol.
        length: Largest number of pairs in a sequence.

    Returns:
        ``[sequences, longest]``, where ``longest`` is at most ``length``.
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
    """Yield each sentence's pairs, ``[pairs, 2]``, split into pieces of at most ``length``."""
    for asked, *pair in zip(batch.asked, batch.inputs, batch.targets, strict=True):
        pairs = np.stack(pair, -1)[asked]
        for start in range(0, len(pairs), length):
            yield pairs[start : start + length]


def _places(sizes: list[int], length: int) -> list[tuple[int, int]]:
    """Return the sequence and the start of each piece."""
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
    """Compute a task's counts on a client's packed sentences.

    Args:
        task: The task.
        model: The model's functions.
        parameters: Named tensors without client axis.
        sequences: The result of ``fill_sequences``.
        unigram: Log probability of each id under the unigram model, float64 ``[vocabulary]``.
        trained_length: Positions of a sequence in training.

    Returns:
        Counts over all targets, and over targets at positions beyond those of training.

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
