"""Plain SGD: ``theta <- (1 - eta lambda) theta - eta g``, without momentum."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.models.model import Model


class Sgd:
    """Plain SGD, which has no state. Weight decay is the same as an L2 penalty lambda / 2.

    Args:
        settings: Learning rate eta and weight decay lambda.
        parameters: theta, ``[parameters]``.
    """

    def __init__(self, settings: ClientSettings, parameters: Tensor, _model: Model) -> None:
        self.learning_rate = settings.learning_rate
        self._decay = settings.weight_decay
        self._parameters = parameters

    def begin(self, learning_rate: float) -> None:
        """Set the learning rate."""
        self.learning_rate = learning_rate

    def memory(self) -> NDArray[np.float32]:
        """Return no numbers."""
        return np.zeros(0, np.float32)

    def resume(self, learning_rate: float, memory: NDArray[np.float32]) -> None:  # noqa: ARG002
        """Set the learning rate, as ``begin``."""
        self.begin(learning_rate)

    def step(self, gradient: Tensor, scale: float = 1.0) -> None:
        """Take a step, as ``Optimizer.step``."""
        if self._decay:
            self._parameters.mul_(1.0 - self.learning_rate * self._decay)
        self._parameters.add_(gradient, alpha=-self.learning_rate * scale)
