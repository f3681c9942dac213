"""What a client counts when it trains or is evaluated, and what follows from the counts.

Counts are kept per client, in float64, and summed in a fixed order; ratios are taken last. Masks
are on the target only. After the TensorFlow Federated Stack Overflow task: ``accuracy`` counts
every target but padding; ``no_oov`` leaves out-of-vocabulary targets out; ``no_oov_no_eos`` the
ends of sentences too, and is the accuracy that papers quote. The prediction is the largest logit
over the whole vocabulary. ``recall_at_3`` asks whether the word was among the three that a
keyboard would show.
"""

import math
from dataclasses import astuple, dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedsi.data.protocol import EOS, OOV

SUGGESTIONS = 3
"""Words that a keyboard shows."""

Counts = NDArray[np.float64]


@dataclass
class Evaluation:
    """Sums over the targets of one client."""

    examples: float = 0.0
    tokens: float = 0.0
    loss: float = 0.0
    hits: float = 0.0
    tokens_no_oov: float = 0.0
    loss_no_oov: float = 0.0
    hits_no_oov: float = 0.0
    tokens_no_oov_no_eos: float = 0.0
    hits_no_oov_no_eos: float = 0.0
    hits_at_3: float = 0.0
    unigram_loss: float = 0.0
    """Of the training clients' unigram model on the same targets."""

    def row(self) -> list[float]:
        """Return the sums in the order of ``COLUMNS``."""
        return list(astuple(self))

    @classmethod
    def total(cls, rows: Counts) -> Self:
        """Add up rows ``[clients, columns]``, in their order."""
        return cls(*rows.sum(axis=0).tolist())

    def add(self, logits: Tensor, targets: Tensor, unigram: Tensor) -> None:
        """Count targets.

        Args:
            logits: ``[targets, vocabulary]``.
            targets: Token ids without padding, ``[targets]``.
            unigram: Log probability of each id under the unigram model, float64 ``[vocabulary]``.
        """
        losses = functional.cross_entropy(logits, targets, reduction="none").double()
        top = logits.topk(min(SUGGESTIONS, logits.shape[-1])).indices
        hits = logits.argmax(-1) == targets
        at_3 = (top == targets.unsqueeze(-1)).any(-1)
        known = targets != OOV
        known_words = known & (targets != EOS)
        self.tokens += len(targets)
        self.loss += float(losses.sum())
        self.hits += int(hits.sum())
        self.tokens_no_oov += int(known.sum())
        self.loss_no_oov += float(losses[known].sum())
        self.hits_no_oov += int((hits & known).sum())
        self.tokens_no_oov_no_eos += int(known_words.sum())
        self.hits_no_oov_no_eos += int((hits & known_words).sum())
        self.hits_at_3 += int((at_3 & known_words).sum())
        self.unigram_loss -= float(unigram[targets].sum())


COLUMNS = tuple(field.name for field in fields(Evaluation))


@dataclass(frozen=True)
class Metrics:
    """How good the predictions of some clients' words are. What has no target is NaN."""

    loss: float
    """Nats per target, padding left out."""
    perplexity: float
    perplexity_no_oov: float
    accuracy: float
    accuracy_no_oov: float
    accuracy_no_oov_no_eos: float
    recall_at_3: float
    """Share of targets that are words (no oov, no eos) among the three likeliest."""
    client_accuracy_p10: float
    """Quantiles over clients of ``accuracy_no_oov_no_eos``."""
    client_accuracy_p50: float
    client_accuracy_p90: float
    unigram_loss: float
    """What the training clients' unigram model has as ``loss``, on the same targets."""


def summarise(rows: Counts) -> Metrics:
    """Turn the counts of evaluated clients into metrics.

    Args:
        rows: ``[clients, columns]`` in the order of ``COLUMNS``.
    """
    total = Evaluation.total(rows)
    words = rows[:, COLUMNS.index("tokens_no_oov_no_eos")]
    hits = rows[:, COLUMNS.index("hits_no_oov_no_eos")]
    per_client = hits[words > 0] / words[words > 0]
    quantiles = np.quantile(per_client, (0.1, 0.5, 0.9)) if len(per_client) else [math.nan] * 3
    loss = _ratio(total.loss, total.tokens)
    return Metrics(
        loss=loss,
        perplexity=perplexity(loss),
        perplexity_no_oov=perplexity(_ratio(total.loss_no_oov, total.tokens_no_oov)),
        accuracy=_ratio(total.hits, total.tokens),
        accuracy_no_oov=_ratio(total.hits_no_oov, total.tokens_no_oov),
        accuracy_no_oov_no_eos=_ratio(total.hits_no_oov_no_eos, total.tokens_no_oov_no_eos),
        recall_at_3=_ratio(total.hits_at_3, total.tokens_no_oov_no_eos),
        client_accuracy_p10=float(quantiles[0]),
        client_accuracy_p50=float(quantiles[1]),
        client_accuracy_p90=float(quantiles[2]),
        unigram_loss=_ratio(total.unigram_loss, total.tokens),
    )


def evaluated(rows: Counts) -> NDArray[np.bool_]:
    """Return which rows are of clients that could be evaluated: ``[clients]``."""
    found: NDArray[np.bool_] = np.asarray((~np.isnan(rows)).any(axis=1))
    return found


def perplexity(loss: float) -> float:
    """Return exp(loss), infinite where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
