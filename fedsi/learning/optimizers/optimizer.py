"""The interface of a client optimizer."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.learning.optimizers.table import OPTIMIZERS
from fedsi.models.model import Model
from fedsi.tables import load


class Optimizer(Protocol):
    """Updates one client's parameters in place; its state lasts for that client's round."""

    learning_rate: float
    """The learning rate of this round."""

    def begin(self, learning_rate: float) -> None:
        """Reset the state and set the learning rate of the next steps."""
        ...

    def memory(self) -> NDArray[np.float32]:
        """Return a copy of the state, one after the other: vectors, and the number of steps."""
        ...

    def resume(self, learning_rate: float, memory: NDArray[np.float32]) -> None:
        """Set the state to an earlier ``memory``, and the learning rate of the next steps."""
        ...

    def step(self, gradient: Tensor, scale: float = 1.0) -> None:
        """Take a step.

        Args:
            gradient: Gradient of the mean loss, ``[parameters]``; may be overwritten.
            scale: Factor applied to the gradient before anything else, from clipping.
        """
        ...


def build_optimizer(settings: ClientSettings, parameters: Tensor, model: Model) -> Optimizer:
    """Return the optimizer in the settings for a model's parameters ``[parameters]``."""
    optimizer: Optimizer = load(OPTIMIZERS[settings.optimizer].build)(settings, parameters, model)
    return optimizer
