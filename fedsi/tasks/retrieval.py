"""The task of retrieval: ranking a set of labels, which have texts, for the text of a query.

A row is ``bos``, the query's words and the number of its answer (``fedsi.data.labels``), so the
target of its last word is the answer: one or several right labels. Outputs are scores of all
labels, ``[queries, labels]``. ``task.loss`` is what clients minimise; the held-out loss is always
that of ``softmax``, so that runs with different losses can be compared.

``precision_at_k`` is the share of right labels among the first k of the ranking, averaged over
queries; ``recall_at_k`` is the share of all right labels that are among them.

Source: Gupta et al., "Dual-Encoders for Extreme Multi-Label Classification" (arXiv 2310.10636).
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fedsi.data.labels import Answers
from fedsi.data.protocol import PAD, Tokens, lengths_of
from fedsi.experiment import TaskSettings
from fedsi.tasks.losses import softmax
from fedsi.tasks.losses.loss import LabelLoss
from fedsi.tasks.losses.table import LOSSES
from fedsi.tasks.table import LABEL_KEYS
from fedsi.tasks.task import FIRST_COLUMNS, Batch, Counts, Losses, Task

HIGHEST_LOSS = 100.0
"""Held-out loss beyond which a run has diverged: that of scores at random is below it."""
AT = (1, 5, 10)
"""Lengths of rankings that are counted."""
_FOUND = tuple(f"found_at_{k}" for k in AT)
AT_MOST = {
    "right": (),
    **dict.fromkeys(_FOUND, ("right",)),
    "shown_at_5": (),
}
COLUMNS = (*FIRST_COLUMNS, *AT_MOST)
"""``tokens`` are queries, ``right`` their right labels, ``found_at_k`` those among the first k, and
``shown_at_5`` the labels in rankings of 5."""
RATIOS = {
    "precision_at_1": ("found_at_1", "tokens"),
    "precision_at_5": ("found_at_5", "shown_at_5"),
    "recall_at_5": ("found_at_5", "right"),
    "recall_at_10": ("found_at_10", "right"),
}


def batch(rows: Tokens) -> Batch:
    """Return the batch of labelled rows ``[batch, tokens]``: the last word has a target."""
    last = lengths_of(rows) - 1
    places = np.arange(len(rows))
    inputs = rows[:, :-1].copy()
    within = last < inputs.shape[1]
    inputs[places[within], last[within]] = PAD
    targets = np.full_like(inputs, PAD)
    targets[places, last - 1] = rows[places, last]
    return Batch(inputs, targets)


def right_labels(answers: Answers | None, targets: Tensor) -> Tensor:
    """Return the labels of some answers, int64 ``[queries, most]``, padded with -1.

    Args:
        answers: The labels of each answer; None if answer n is the label n - 1.
        targets: Numbers of answers, ``[queries]``; 0 where nothing is asked.
    """
    if answers is None:
        return (targets - 1).unsqueeze(-1)
    found: Tensor = torch.from_numpy(answers).to(targets.device)[targets - 1]
    return torch.where((targets > 0).unsqueeze(-1), found, -1)


def label_losses(loss: LabelLoss, answers: Answers | None, settings: TaskSettings) -> Losses:
    """Return a loss as a function of outputs and answers."""

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        right, known = right_labels(answers, targets), None
        if settings.negatives == "batch":
            there = (right >= 0).to(outputs.dtype).flatten()
            known = outputs.new_zeros(outputs.shape[-1])
            known = known.scatter_add(0, right.clamp_min(0).flatten(), there) > 0
        return loss(outputs, right, known, settings.k)

    return losses


def counts_of(answers: Answers | None, outputs: Tensor, asked: Batch) -> Counts:
    """Compute the counts of some outputs, ``[columns]``.

    Args:
        answers: The labels of each answer.
        outputs: Scores, ``[queries, labels]``.
        asked: The batch.
    """
    right = right_labels(answers, torch.from_numpy(asked.targets[asked.asked]).long())
    ranking = outputs.topk(min(max(AT), outputs.shape[-1])).indices
    hits = (ranking.unsqueeze(-1) == right.unsqueeze(-2)).any(-1).sum(0)
    found = {
        "examples": len(asked),
        "tokens": len(right),
        "loss": float(softmax.softmax_loss(outputs.double(), right, None, 1).sum()),
        "right": int((right >= 0).sum()),
        **{name: int(hits[:k].sum()) for name, k in zip(_FOUND, AT, strict=True)},
        "shown_at_5": len(right) * min(5, outputs.shape[-1]),
    }
    return np.array([found[name] for name in COLUMNS], dtype=np.float64)


def counts(outputs: Tensor, asked: Batch, _unigram: Tensor) -> Counts:
    """Compute the counts of outputs on a batch in which answer n is the label n - 1."""
    return counts_of(None, outputs, asked)


def ranking_metrics(rows: Counts) -> Mapping[str, float]:
    """Turn clients' counts ``[clients, columns]`` into metrics; NaN without queries."""
    total = dict(zip(COLUMNS, rows.sum(axis=0).tolist(), strict=True))
    ratios = {"loss": ("loss", "tokens"), **RATIOS}
    return {
        name: total[above] / total[below] if total[below] else math.nan
        for name, (above, below) in ratios.items()
    }


def with_own_answers(settings: TaskSettings) -> Task:
    """Return the task for its keys, on rows in which answer n is the label n - 1."""
    return bound(settings, None)


def bound(settings: TaskSettings, answers: Answers | None) -> Task:
    """Return the task for its keys and the answers of a population."""
    loss = LOSSES[settings.loss]

    def counted(outputs: Tensor, asked: Batch, _unigram: Tensor) -> Counts:
        return counts_of(answers, outputs, asked)

    return replace(TASK, losses=label_losses(loss, answers, settings), counts=counted)


def highest_loss(_vocabulary_size: int) -> float:
    """Return the loss beyond which a run has diverged."""
    return HIGHEST_LOSS


TASK = Task(
    batch=batch,
    columns=COLUMNS,
    counts=counts,
    names=("loss", *RATIOS),
    metrics=ranking_metrics,
    score="precision_at_1",
    curves={"precision_at_1": "first label is right", "recall_at_10": "right labels in first 10"},
    labels={
        "loss": "loss",
        "precision_at_1": "precision at 1",
        "precision_at_5": "precision at 5",
        "recall_at_5": "recall at 5",
        "recall_at_10": "recall at 10",
    },
    ratios=RATIOS,
    title="retrieval",
    unit="queries",
    deciding="precision_at_1",
    highest_loss=highest_loss,
    at_most=AT_MOST,
    keys=LABEL_KEYS,
    configured=with_own_answers,
    bound=bound,
)
