"""The task of a keyboard: predicting each next word of a sentence.

Counts are kept per client, in float64, and summed in a fixed order; ratios are taken last. Masks
apply to the target only, as in TensorFlow Federated's Stack Overflow task: ``accuracy`` counts
every target but padding; ``no_oov`` excludes out-of-vocabulary targets; ``no_oov_no_eos`` also
excludes ends of sentences, and is the accuracy that papers quote. The prediction is the largest
logit over the whole vocabulary. ``recall_at_3`` is the share of words among the three that a
keyboard would show.
"""

import math
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from fedsi.data.protocol import EOS, OOV, Tokens, inputs_and_targets
from fedsi.experiment import TaskSettings
from fedsi.tasks.losses.table import LOSSES
from fedsi.tasks.task import FIRST_COLUMNS, Batch, Counts, RankedTargets, Task, cross_entropy

SUGGESTIONS = 3
"""Number of words that a keyboard shows."""

DIVERGED_LOSS = 1.5
"""A run whose loss exceeds this multiple of the uniform model's, log(vocabulary), has diverged."""

AT_MOST = {
    "hits": ("tokens",),
    "tokens_no_oov": ("tokens",),
    "hits_no_oov": ("tokens_no_oov", "hits"),
    "tokens_no_oov_no_eos": ("tokens_no_oov",),
    "hits_no_oov_no_eos": ("tokens_no_oov_no_eos", "hits_no_oov"),
    "hits_at_3": ("tokens_no_oov_no_eos",),
}
COLUMNS = (*FIRST_COLUMNS, *AT_MOST, "loss_no_oov", "unigram_loss")
"""``unigram_loss`` is the loss of the training clients' unigram model on the same targets."""


def batch(rows: Tokens) -> Batch:
    """Return a batch in which every token but the first is a target; arrays are views of ``rows``.

    Args:
        rows: ``[batch, time + 1]``, padded at their ends.
    """
    return Batch(*inputs_and_targets(rows))


def counts(outputs: Tensor, asked: Batch, unigram: Tensor) -> Counts:
    """Compute the counts of some outputs.

    Args:
        outputs: Logits, ``[targets, vocabulary]``.
        asked: The batch.
        unigram: Log probability of each id under the unigram model, float64 ``[vocabulary]``.

    Returns:
        Sums over the targets, ``[columns]``.
    """
    targets = torch.from_numpy(asked.targets[asked.asked]).long()
    losses = cross_entropy(outputs, targets).double().detach().numpy()
    found = RankedTargets(targets.numpy(), losses, ranks(outputs, targets).numpy())
    return ranked(found, len(asked), unigram)


def ranks(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the ranks of targets as in ``RankedTargets``, ``[targets]``.

    Args:
        outputs: Logits, ``[targets, vocabulary]``.
        targets: Token ids, ``[targets]``.
    """
    at_targets, ids = outputs.gather(-1, targets.unsqueeze(-1)), torch.arange(outputs.shape[-1])
    first = (outputs == at_targets) & (ids < targets.unsqueeze(-1))
    found = ((outputs > at_targets) | first).sum(-1)
    return found.masked_fill_(outputs.isnan().any(-1), outputs.shape[-1])


def ranked(found: RankedTargets, examples: int, unigram: Tensor) -> Counts:
    """Compute the counts of ranked targets.

    Args:
        found: The targets.
        examples: Number of sequences.
        unigram: As in ``counts``.

    Returns:
        Sums over the targets, ``[columns]``.
    """
    targets, losses = found.targets, found.losses
    hits, at_3 = found.ranks == 0, found.ranks < SUGGESTIONS
    known = targets != OOV
    words = known & (targets != EOS)
    sums = {
        "examples": examples,
        "tokens": len(targets),
        "loss": losses.sum(),
        "hits": hits.sum(),
        "tokens_no_oov": known.sum(),
        "hits_no_oov": (hits & known).sum(),
        "tokens_no_oov_no_eos": words.sum(),
        "hits_no_oov_no_eos": (hits & words).sum(),
        "hits_at_3": (at_3 & words).sum(),
        "loss_no_oov": losses[known].sum(),
        "unigram_loss": -unigram.numpy()[targets].sum(),
    }
    return np.array([sums[name] for name in COLUMNS], dtype=np.float64)


@dataclass(frozen=True)
class Metrics:
    """Quality of the word predictions for some clients. Metrics without any target are NaN."""

    loss: float
    """Nats per target, without padding."""
    perplexity: float
    perplexity_no_oov: float
    accuracy: float
    accuracy_no_oov: float
    accuracy_no_oov_no_eos: float
    recall_at_3: float
    """Share of word targets (no oov, no eos) among the three most likely words."""
    client_accuracy_p10: float
    """10 % quantile over clients of ``accuracy_no_oov_no_eos``; the next two are 50 % and 90 %."""
    client_accuracy_p50: float
    client_accuracy_p90: float
    client_loss_mean: float
    """Mean over clients of ``loss``, in which each client weighs the same."""
    client_accuracy_mean: float
    """Mean over clients of ``accuracy_no_oov_no_eos``."""
    unigram_loss: float
    """Loss of the training clients' unigram model on the same targets."""


def metrics(rows: Counts) -> dict[str, float]:
    """Turn the counts of evaluated clients into the metrics described in ``Metrics``.

    Args:
        rows: ``[clients, columns]``.
    """
    total = dict(zip(COLUMNS, rows.sum(axis=0).tolist(), strict=True))
    words = rows[:, COLUMNS.index("tokens_no_oov_no_eos")]
    hits = rows[:, COLUMNS.index("hits_no_oov_no_eos")]
    per_client = hits[words > 0] / words[words > 0]
    tokens, losses = (rows[:, COLUMNS.index(name)] for name in ("tokens", "loss"))
    client_losses = losses[tokens > 0] / tokens[tokens > 0]
    quantiles = np.quantile(per_client, (0.1, 0.5, 0.9)) if len(per_client) else [math.nan] * 3

    def ratio(numerator: str, denominator: str) -> float:
        return total[numerator] / total[denominator] if total[denominator] else math.nan

    loss = ratio("loss", "tokens")
    return asdict(
        Metrics(
            loss=loss,
            perplexity=perplexity(loss),
            perplexity_no_oov=perplexity(ratio("loss_no_oov", "tokens_no_oov")),
            accuracy=ratio("hits", "tokens"),
            accuracy_no_oov=ratio("hits_no_oov", "tokens_no_oov"),
            accuracy_no_oov_no_eos=ratio("hits_no_oov_no_eos", "tokens_no_oov_no_eos"),
            recall_at_3=ratio("hits_at_3", "tokens_no_oov_no_eos"),
            client_accuracy_p10=float(quantiles[0]),
            client_accuracy_p50=float(quantiles[1]),
            client_accuracy_p90=float(quantiles[2]),
            client_loss_mean=float(client_losses.mean()) if len(client_losses) else math.nan,
            client_accuracy_mean=float(per_client.mean()) if len(per_client) else math.nan,
            unigram_loss=ratio("unigram_loss", "tokens"),
        )
    )


def perplexity(loss: float) -> float:
    """Return exp(loss), or infinity if that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _highest_loss(vocabulary_size: int) -> float:
    return DIVERGED_LOSS * math.log(vocabulary_size)


def with_loss(settings: TaskSettings) -> Task:
    """Return the task for its keys; the losses of an evaluation are always cross-entropy."""
    if settings.loss == "softmax":
        return TASK
    loss = LOSSES[settings.loss]

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        return loss(outputs, targets.unsqueeze(-1), None, settings.k)

    return replace(TASK, losses=losses)


TASK = Task(
    batch=batch,
    columns=COLUMNS,
    counts=counts,
    ranked=ranked,
    names=tuple(one.name for one in fields(Metrics)),
    metrics=metrics,
    score="accuracy_no_oov_no_eos",
    curves={
        "accuracy_no_oov_no_eos": "most likely word",
        "recall_at_3": "among three suggestions",
    },
    labels={
        "loss": "loss",
        "perplexity": "perplexity",
        "accuracy": "accuracy",
        "accuracy_no_oov_no_eos": "word accuracy",
        "recall_at_3": "recall at 3",
        "unigram_loss": "unigram loss",
    },
    ratios={
        "accuracy": ("hits", "tokens"),
        "accuracy_no_oov": ("hits_no_oov", "tokens_no_oov"),
        "accuracy_no_oov_no_eos": ("hits_no_oov_no_eos", "tokens_no_oov_no_eos"),
        "recall_at_3": ("hits_at_3", "tokens_no_oov_no_eos"),
        "unigram_loss": ("unigram_loss", "tokens"),
    },
    title="next-word accuracy",
    unit="words",
    highest_loss=_highest_loss,
    at_most=AT_MOST,
    keys=frozenset({"loss", "k"}),
    configured=with_loss,
)
