"""AdamW: Adam with decoupled weight decay.

Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (arXiv 1711.05101), algorithm 2, with
the learning rate on the decay too, as in ``torch.optim.AdamW``. In step t, from 1: ``m <- b1 m + (1
- b1) g``, ``v <- b2 v + (1 - b2) g^2``, ``theta <- (1 - eta lambda) theta - eta (m / (1 - b1^t)) /
(sqrt(v / (1 - b2^t)) + tau)``.

A parameter whose gradient has been zero in all of the client's steps changes by weight decay only.
So without weight decay, embeddings of words that the client does not have stay unchanged.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.kernels.cpu.adamw import adamw_step
from fedsi.models.model import Model


class Moments:
    """First and second moments of gradients, and the number of steps that they are from.

    Args:
        settings: The learning rate.
        parameters: What the gradients are of, ``[parameters]``.
    """

    def __init__(self, settings: ClientSettings, parameters: Tensor) -> None:
        self.learning_rate = settings.learning_rate
        self.settings, self.parameters = settings, parameters
        self.first, self.second = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self.steps = 0

    def begin(self, learning_rate: float) -> None:
        """Set the learning rate and reset the moments."""
        self.learning_rate = learning_rate
        self.steps = 0
        self.first.zero_()
        self.second.zero_()

    def memory(self) -> NDArray[np.float32]:
        """Return both moments and the number of steps, ``[2 * parameters + 1]``."""
        steps = np.array([self.steps], np.float32)
        return np.concatenate([self.first.numpy(), self.second.numpy(), steps])

    def resume(self, learning_rate: float, memory: NDArray[np.float32]) -> None:
        """Continue with earlier moments."""
        self.learning_rate = learning_rate
        size = len(self.parameters)
        self.first.numpy()[:], self.second.numpy()[:] = memory[:size], memory[size : 2 * size]
        self.steps = int(memory[-1])

    def scalars(self) -> NDArray[np.floating[Any]]:
        """Return the scalars of ``adamw_step`` for the step that was counted last."""
        settings, rate = self.settings, self.learning_rate
        b1, b2 = settings.momentum, settings.second_moment_decay
        scalars = [
            b1,
            1 - b1,
            b2,
            1 - b2,
            1 - rate * settings.weight_decay,
            rate / (1 - b1**self.steps),
            1 / math.sqrt(1 - b2**self.steps),
            settings.adaptivity,
        ]
        return np.array(scalars, self.parameters.numpy().dtype)


class AdamW(Moments):
    """AdamW; moments and bias corrections restart for each client.

    Args:
        settings: Learning rate eta, weight decay lambda, decays b1 and b2, adaptivity tau.
        parameters: theta, ``[parameters]``.
    """

    def __init__(self, settings: ClientSettings, parameters: Tensor, _model: Model) -> None:
        super().__init__(settings, parameters)

    def step(self, gradient: Tensor, scale: float = 1.0) -> None:
        """Take a step, as ``Optimizer.step``; the clipped gradient enters the moments."""
        if scale != 1.0:
            gradient.mul_(scale)
        self.steps += 1
        adamw_step(
            self.parameters.numpy(),
            gradient.numpy(),
            self.first.numpy(),
            self.second.numpy(),
            self.scalars(),
        )
