"""AdamW: Adam with decoupled weight decay.

Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (arXiv 1711.05101), algorithm 2, with
the learning rate on the decay too, as in ``torch.optim.AdamW``. In step t, from 1: ``m <- b1 m + (1
- b1) g``, ``v <- b2 v + (1 - b2) g^2``, ``theta <- (1 - eta lambda) theta - eta (m / (1 - b1^t)) /
(sqrt(v / (1 - b2^t)) + tau)``.

A parameter whose gradient has been zero in all of the client's steps changes by weight decay only.
So without weight decay, embeddings of words that the client does not have stay unchanged.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.kernels.cpu.adamw import adamw_step
from fedsi.models.model import Model


class AdamW:
    """AdamW; moments and bias corrections restart for each client.

    Args:
        settings: Learning rate eta, weight decay lambda, decays b1 and b2, adaptivity tau.
        parameters: theta, ``[parameters]``.
    """

    def __init__(self, settings: ClientSettings, parameters: Tensor, _model: Model) -> None:
        self.learning_rate = settings.learning_rate
        self._settings = settings
        self._parameters = parameters
        self._first, self._second = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self._steps = 0

    def begin(self, learning_rate: float) -> None:
        """Set the learning rate and reset the moments."""
        self.learning_rate = learning_rate
        self._steps = 0
        self._first.zero_()
        self._second.zero_()

    def memory(self) -> NDArray[np.float32]:
        """Return both moments and the number of steps, ``[2 * parameters + 1]``."""
        steps = np.array([self._steps], np.float32)
        return np.concatenate([self._first.numpy(), self._second.numpy(), steps])

    def resume(self, learning_rate: float, memory: NDArray[np.float32]) -> None:
        """Continue with earlier moments."""
        self.learning_rate = learning_rate
        size = len(self._parameters)
        self._first.numpy()[:], self._second.numpy()[:] = memory[:size], memory[size : 2 * size]
        self._steps = int(memory[-1])

    def step(self, gradient: Tensor, scale: float = 1.0) -> None:
        """Take a step, as ``Optimizer.step``; the clipped gradient enters the moments."""
        if scale != 1.0:
            gradient.mul_(scale)
        self._steps += 1
        scalars = adamw_scalars(self._settings, self.learning_rate, self._steps)
        parameters = self._parameters.numpy()
        adamw_step(
            parameters,
            gradient.numpy(),
            self._first.numpy(),
            self._second.numpy(),
            np.array(scalars, parameters.dtype),
        )


def adamw_scalars(settings: ClientSettings, rate: float, steps: int) -> list[float]:
    """Return the scalars of ``adamw_step`` for a step, counted from 1."""
    b1, b2 = settings.momentum, settings.second_moment_decay
    return [
        b1,
        1 - b1,
        b2,
        1 - b2,
        1 - rate * settings.weight_decay,
        rate / (1 - b1**steps),
        1 / math.sqrt(1 - b2**steps),
        settings.adaptivity,
    ]
