"""The interface of a client optimizer."""

from typing import Protocol

from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.learning.optimizers.table import OPTIMIZERS
from fedsi.tables import load


class Optimizer(Protocol):
    """Moves one client's parameters in place; its state lasts for that client's round."""

    learning_rate: float
    """Of this round."""

    def begin(self, learning_rate: float) -> None:
        """Forget the client before; the next steps have this learning rate."""
        ...

    def step(self, gradient: Tensor, scale: float = 1.0) -> None:
        """Take a step.

        Args:
            gradient: Of the mean loss, ``[parameters]``; may be overwritten.
            scale: What it is multiplied by before anything else, as clipping says.
        """
        ...


def build_optimizer(settings: ClientSettings, parameters: Tensor) -> Optimizer:
    """Return the optimizer that settings name, of parameters ``[parameters]``."""
    optimizer: Optimizer = load(OPTIMIZERS[settings.optimizer].build)(settings, parameters)
    return optimizer
