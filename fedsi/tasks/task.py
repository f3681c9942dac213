"""The interface of a task: targets, losses, metrics, and their names in reports.

A task's module ends with its entry, ``TASK = Task(...)``. Training, the wire, the server and the
files of a run use the entry and know no task by name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedsi.data.generated import Generation
from fedsi.data.protocol import PAD, Tokens

if TYPE_CHECKING:
    from fedsi.data.labels import Answers
    from fedsi.experiment import TaskSettings

Counts = NDArray[np.float64]
Ids = NDArray[np.int64]
Losses = Callable[[Tensor, Tensor], Tensor]

FIRST_COLUMNS = ("examples", "tokens", "loss")
"""Counts common to all tasks: sequences, targets, and the sum of the targets' losses in nats."""


@dataclass(frozen=True)
class Batch:
    """Sequences that a model reads, and the targets at their positions."""

    inputs: Tokens
    """``[batch, time]``."""
    targets: Tokens
    """``[batch, time]``; ``PAD`` at positions without a target."""
    positions: Ids | None = None
    """Ids of the tokens' positions, ``[streams, batch, time]``, -1 for a token without one; None if
    positions count from 0. Models without ids ignore them."""

    def __len__(self) -> int:
        return len(self.inputs)

    @cached_property
    def asked(self) -> NDArray[np.bool_]:
        """Positions that have a target, ``[batch, time]``."""
        return np.asarray(self.targets != PAD)

    @cached_property
    def count(self) -> int:
        """Number of targets."""
        return int(np.count_nonzero(self.asked))


@dataclass(frozen=True)
class RankedTargets:
    """Targets with their losses and ranks under a model."""

    targets: Ids
    """Token ids, ``[targets]``."""
    losses: NDArray[np.float64]
    """Cross-entropy of each in nats, ``[targets]``."""
    ranks: Ids
    """Number of words that the model finds likelier, or as likely and which come first in the
    vocabulary, ``[targets]``; the size of the vocabulary if the loss is NaN."""

    def split(self, sizes: Sequence[int]) -> "list[RankedTargets]":
        """Return consecutive parts of some sizes."""
        ends = np.cumsum(sizes)[:-1]
        arrays = (np.split(part, ends) for part in (self.targets, self.losses, self.ranks))
        return [RankedTargets(*parts) for parts in zip(*arrays, strict=True)]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each target in nats, ``[targets]``.

    Args:
        outputs: Logits, ``[targets, vocabulary]``.
        targets: Token ids, ``[targets]``.
    """
    return functional.cross_entropy(outputs, targets, reduction="none")


@dataclass(frozen=True)
class Task:
    """A task.

    Outputs are a model's predictions at the positions with targets, in the order of the batch:
    ``[targets, vocabulary]``.
    """

    batch: Callable[[Tokens], Batch]
    """Makes a batch from rows ``[batch, tokens]``, which are padded at their ends."""
    columns: tuple[str, ...]
    """Names of the counts of a client in an evaluation, ``FIRST_COLUMNS`` first."""
    counts: Callable[[Tensor, Batch, Tensor], Counts]
    """Computes the counts of outputs on a batch: ``[columns]``, additive over batches. The last
    argument is the log probability of each token id under the unigram model, float64
    ``[vocabulary]``.
    """
    names: tuple[str, ...]
    """Names of the metrics; the first is ``loss``, nats per target."""
    metrics: Callable[[Counts], Mapping[str, float]]
    """Computes metrics from clients' counts ``[clients, columns]``; NaN if there is no target."""
    score: str
    """The metric that is reported as the result: a share of the targets."""
    curves: Mapping[str, str]
    """Shares plotted over rounds in a run's figure, each with its label."""
    title: str
    """Common title of these curves."""
    unit: str
    """Name of a target, in the plural."""
    highest_loss: Callable[[int], float]
    """Held-out loss beyond which a run has diverged, given the size of the vocabulary."""
    ranked: Callable[[RankedTargets, int, Tensor], Counts] | None = None
    """Computes the same counts from ranked targets and the number of sequences, where these are
    enough; evaluations are then several times as fast."""
    at_most: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further columns that are whole numbers, each with the columns that it cannot exceed. The
    remaining columns are sums of losses over targets."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Metrics shown in tables, in order, and their names there; empty for all metrics."""
    ratios: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Metrics besides the loss that are ratios of sums of columns: numerator and denominator.
    Studies give intervals over clients for them."""
    higher_is_better: bool = True
    """Whether a higher score is better."""
    deciding: str = "loss"
    """The metric by which studies choose settings and compare arms: ``loss``, or the score of a
    task whose loss says little about it."""
    generation: Generation | None = None
    """Makes the examples of a task that uses no corpus; None for a task on ``data.corpus``."""
    streams: int = 0
    """Number of streams of position ids in its batches; 0 if it gives none."""
    keys: frozenset[str] = frozenset()
    """The keys ``task.*`` that it uses, apart from ``name`` and those of every generated
    population."""
    configured: "Callable[[TaskSettings], Task] | None" = None
    """Returns the task for the values of its keys; None if they do not change it."""
    bound: "Callable[[TaskSettings, Answers | None], Task] | None" = None
    """Returns the task for the values of its keys and the answers of a population; None for a task
    without labels. A model for a task with labels ranks them instead of words."""
    losses: Losses = cross_entropy
    """Returns the loss in nats of each output ``[targets, vocabulary]`` and target
    ``[targets]``."""

    @property
    def shown(self) -> Mapping[str, str]:
        """Metrics shown in tables, and their names there."""
        return self.labels or {name: name.replace("_", " ") for name in self.names}

    def rises(self, metric: str) -> bool:
        """Whether a higher value of a metric is better."""
        return metric != "loss" and (metric != self.score or self.higher_is_better)

    def columns_of(self, metric: str) -> tuple[int, int] | None:
        """Return the numerator's and the denominator's column of a metric that is a ratio."""
        ratios = {"loss": ("loss", "tokens"), **self.ratios}
        if metric not in ratios:
            return None
        above, below = ratios[metric]
        return self.columns.index(above), self.columns.index(below)
