"""First steps of several clients, computed in one pass.

All clients of a round start from the same weights, so their first forward and backward passes are
one pass over a joined batch: the weights are read once, not once per client, and small operations
are started once. Each client's gradient has the bits that it has alone, so it does not matter which
clients are joined. PyTorch's products do not promise this, so with them nothing is joined.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.output import UpdateRule
from fedsi.kernels.cpu.product_choice import OWN, products_of
from fedsi.models.model import Model
from fedsi.models.parameters import Parameters
from fedsi.models.table import joins_batches, pass_by_hand
from fedsi.tables import load
from fedsi.tasks.task import Batch, Losses, cross_entropy

MOST_LOGITS = 1 << 23
"""Most logits of a joined batch, all of which are kept: 32 MiB."""
MOST_TARGETS = 1 << 12
"""Most targets of a joined batch. A Transformer keeps some 13 kB of each for every layer of 128
numbers; with a small vocabulary the logits alone would allow hundreds of thousands."""


class FirstStep(Protocol):
    """The gradient of a client's first step."""

    @property
    def loss(self) -> float:
        """Sum of the losses in nats."""
        ...

    def apply(self, into: Parameters, update: UpdateRule) -> None:
        """Apply it to parameters, or to gradients of their shapes; only once."""
        ...


def can_join(model: Model, settings: ClientSettings, losses: Losses) -> bool:
    """Whether the first steps of a model with a task's losses can be joined."""
    if losses is not cross_entropy or products_of(settings) != OWN:
        return False
    return joins_batches(model)


class FirstSteps:
    """Computes the gradients of first steps.

    Args:
        model: A model whose first steps can be joined.
        settings: The settings of local training.
    """

    def __init__(self, model: Model, settings: ClientSettings) -> None:
        self._start = torch.zeros(model.layout.size)
        self._products = Products(settings)
        self._pass = load(str(pass_by_hand(model)))(model, model.layout.views(self._start))
        self.most_targets = min(MOST_LOGITS // model.vocabulary_size, MOST_TARGETS)
        """Largest number of targets that are worth joining."""

    def begin(self, start: Tensor) -> None:
        """Set the global parameters of the next clients, ``[parameters]``."""
        self._start.copy_(start)

    def gradients(self, batches: Sequence[Batch]) -> Sequence[FirstStep]:
        """Return the gradient of each batch, valid until the next call.

        Args:
            batches: Batches with at least one target each.
        """
        gradients: Sequence[FirstStep] = self._pass.together(batches, self._products)
        return gradients
