"""What a task is: which positions are targets, how predictions are scored, what scores are called.

A task's entry ends its module: ``TASK = Task(...)``. Training, the wire, the server and the files
of a run ask it, and know no task by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedsi.data.protocol import PAD, Tokens

Counts = NDArray[np.float64]
Losses = Callable[[Tensor, Tensor], Tensor]

FIRST_COLUMNS = ("examples", "tokens", "loss")
"""What every task counts first: sequences, targets, and the sum of the targets' losses in nats."""


@dataclass(frozen=True)
class Batch:
    """Sequences that a model reads, and what it is asked at their positions."""

    inputs: Tokens
    """``[batch, time]``."""
    targets: Tokens
    """``[batch, time]``; ``PAD`` where nothing is asked."""

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

    Outputs are what a model says where a batch asks, in the order of the batch:
    ``[targets, vocabulary]``.
    """

    batch: Callable[[Tokens], Batch]
    """Makes a batch of rows ``[batch, tokens]`` that are padded at their ends."""
    columns: tuple[str, ...]
    """What a client counts in an evaluation, ``FIRST_COLUMNS`` first."""
    counts: Callable[[Tensor, Batch, Tensor], Counts]
    """Counts outputs on a batch: ``[columns]``, which add up over batches. The last argument is the
    log probability of each token id under the unigram model, float64 ``[vocabulary]``."""
    names: tuple[str, ...]
    """Names of the metrics, ``loss`` first: nats per target."""
    metrics: Callable[[Counts], Mapping[str, float]]
    """Makes metrics of clients' counts ``[clients, columns]``; NaN for what has no target."""
    score: str
    """The metric that is the result: a share of the targets."""
    curves: Mapping[str, str]
    """The shares that a run's figure draws over rounds, each with what it is called there."""
    title: str
    """What the figure calls them together."""
    unit: str
    """What a target is, in the plural."""
    highest_loss: Callable[[int], float]
    """The held-out loss beyond which a run has diverged, given the size of the vocabulary."""
    at_most: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns beside the first ones that are whole numbers, each with the columns that it cannot
    exceed. The others are sums of losses over targets."""
    higher_is_better: bool = True
    """Whether a higher score is a better one."""
    losses: Losses = cross_entropy
    """The loss of each output ``[targets, vocabulary]`` and target ``[targets]``, in nats."""
