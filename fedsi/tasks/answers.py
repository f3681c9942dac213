"""Counts and metrics of tasks that ask for an answer: the last part of a sequence.

A sequence is right if all of its targets are the most likely token, given the true tokens before
them; then greedy decoding gives the whole answer too. The *stop* is the decision whether an answer
goes on: ``stop_accuracy`` is the share of right predictions among the targets that decide it.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fedsi.data.generated import Generation, Size
from fedsi.data.protocol import EOS, PAD, Tokens
from fedsi.experiment import TaskSettings
from fedsi.tasks.task import FIRST_COLUMNS, Batch, Counts, Task, cross_entropy

DIVERGED_LOSS = 1.5
"""A run whose loss exceeds this multiple of the uniform model's, log(vocabulary), has diverged."""

AT_MOST = {
    "hits": ("tokens",),
    "exact": ("examples",),
    "stops": ("tokens",),
    "stop_hits": ("stops", "hits"),
}
COLUMNS = (*FIRST_COLUMNS, *AT_MOST)
NAMES = ("loss", "exact_match", "token_accuracy", "stop_accuracy")
RATIOS = {
    "exact_match": ("exact", "examples"),
    "token_accuracy": ("hits", "tokens"),
    "stop_accuracy": ("stop_hits", "stops"),
}
CURVES = {"exact_match": "whole answers", "token_accuracy": "tokens"}
LABELS = {
    "loss": "loss",
    "exact_match": "exact match",
    "token_accuracy": "token accuracy",
    "stop_accuracy": "stop accuracy",
}


def asking_task(batch: Callable[[Tokens], Batch], score: str, generation: Generation) -> Task:
    """Return a task whose targets are answers with the end of the text.

    Args:
        batch: Makes a batch from rows, as ``Task.batch``.
        score: The metric that is reported as the result.
        generation: Makes the examples.
    """
    return Task(
        batch=batch,
        columns=COLUMNS,
        counts=ended_counts,
        names=NAMES,
        metrics=answer_metrics,
        score=score,
        curves=CURVES,
        labels=LABELS,
        ratios=RATIOS,
        title="right answers",
        unit="tokens of answers",
        highest_loss=diverged_loss,
        at_most=AT_MOST,
        generation=generation,
    )


def sizes_between(settings: TaskSettings) -> Sequence[Size]:
    """Return the sizes from ``task.shortest`` to ``task.longest``."""
    return [(length,) for length in range(settings.shortest, settings.longest + 1)]


def parsed_length(text: str, task: str, counted: str) -> Size:
    """Return the size that a number names.

    Args:
        text: The text, such as ``20``.
        task: The task's name, for the error.
        counted: What it counts, in the plural.

    Raises:
        ValueError: The text is no positive number.
    """
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise ValueError(
            f"{text!r} is no length of {task}; give a number of {counted} of 1 or more, such as 20"
        )
    return (int(text),)


def answers_after(rows: Tokens, mark: int) -> Batch:
    """Return a batch whose targets are the tokens after the first ``mark`` of each row.

    Args:
        rows: ``[batch, tokens]``, padded at their ends.
        mark: A token id that every row contains.
    """
    inputs, targets = rows[:, :-1], rows[:, 1:]
    begun = np.cumsum(inputs == mark, axis=1) > 0
    return Batch(inputs, np.where(begun, targets, PAD).astype(np.int32))


def answer_counts(outputs: Tensor, asked: Batch, stops: Collection[int]) -> Counts:
    """Compute the counts of some outputs.

    Args:
        outputs: Logits, ``[targets, vocabulary]``.
        asked: The batch.
        stops: Targets that decide whether an answer goes on.

    Returns:
        Sums over the targets, ``[columns]``.
    """
    targets = torch.from_numpy(asked.targets[asked.asked]).long()
    losses = cross_entropy(outputs, targets).double()
    right = (outputs.argmax(-1) == targets).numpy()
    wrong = np.bincount(np.nonzero(asked.asked)[0], ~right, len(asked))
    deciding = np.isin(targets.numpy(), list(stops))
    found = {
        "examples": len(asked),
        "tokens": len(targets),
        "loss": float(losses.sum()),
        "hits": int(right.sum()),
        "exact": int((wrong == 0).sum()),
        "stops": int(deciding.sum()),
        "stop_hits": int((right & deciding).sum()),
    }
    return np.array([found[name] for name in COLUMNS], dtype=np.float64)


def ended_counts(outputs: Tensor, asked: Batch, _unigram: Tensor) -> Counts:
    """Compute the counts of answers that go on until the end of the text."""
    return answer_counts(outputs, asked, {EOS})


def answer_metrics(rows: Counts) -> Mapping[str, float]:
    """Turn clients' counts ``[clients, columns]`` into metrics; NaN without targets."""
    total = dict(zip(COLUMNS, rows.sum(axis=0).tolist(), strict=True))
    ratios = {"loss": ("loss", "tokens"), **RATIOS}
    return {
        name: total[above] / total[below] if total[below] else math.nan
        for name, (above, below) in ratios.items()
    }


def diverged_loss(vocabulary_size: int) -> float:
    """Return the loss beyond which a run has diverged."""
    return DIVERGED_LOSS * math.log(vocabulary_size)
