"""Client optimizers of many clients at once: a lane is one client's parameters.

Each has the equations of its counterpart for one client, in PyTorch's operations, which run on any
device.
"""

from typing import Protocol

import torch
from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.learning.optimizers.muon import orthogonalised, split_hidden
from fedsi.learning.optimizers.table import OPTIMIZERS
from fedsi.models.model import Model
from fedsi.tables import load


class LaneOptimizer(Protocol):
    """Updates the parameters of all lanes in place; its state begins anew for each group."""

    def begin(self, learning_rate: float) -> None:
        """Reset the state and set the learning rate of the next steps."""
        ...

    def step(self, gradients: Tensor, active: Tensor) -> None:
        """Take a step in the active lanes; the others keep their bits.

        Args:
            gradients: Clipped gradients with the algorithm's pull, ``[lanes, parameters]``; may be
                overwritten.
            active: Which lanes take the step, ``[lanes, 1]``.
        """
        ...


class SgdLanes:
    """Plain SGD, as ``Sgd``.

    Args:
        settings: Weight decay.
        parameters: ``[lanes, parameters]``.
    """

    def __init__(self, settings: ClientSettings, parameters: Tensor, _model: Model) -> None:
        self._rate = settings.learning_rate
        self._decay = settings.weight_decay
        self._parameters = parameters

    def begin(self, learning_rate: float) -> None:
        """Set the learning rate."""
        self._rate = learning_rate

    def step(self, gradients: Tensor, active: Tensor) -> None:
        """Take a step, as ``LaneOptimizer.step``."""
        keep = 1.0 - self._rate * self._decay
        stepped = torch.add(self._parameters * keep, gradients, alpha=-self._rate)
        torch.where(active, stepped, self._parameters, out=self._parameters)


class AdamWLanes:
    """AdamW, as ``AdamW``.

    Args:
        settings: Weight decay, decays of the moments, adaptivity.
        parameters: ``[lanes, parameters]``.
    """

    def __init__(self, settings: ClientSettings, parameters: Tensor, _model: Model) -> None:
        self._rate = settings.learning_rate
        self._settings = settings
        self._parameters = parameters
        self._first, self._second = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self._steps = 0

    def begin(self, learning_rate: float) -> None:
        """Set the learning rate and reset the moments."""
        self._rate = learning_rate
        self._steps = 0
        self._first.zero_()
        self._second.zero_()

    def step(self, gradients: Tensor, active: Tensor) -> None:
        """Take a step, as ``LaneOptimizer.step``."""
        torch.where(active, self.stepped(gradients), self._parameters, out=self._parameters)

    def stepped(self, gradients: Tensor) -> Tensor:
        """Return the parameters after a step in every lane, ``[lanes, parameters]``.

        All lanes begin together and only stop one by one, so they share the number of steps.
        """
        self._steps += 1
        settings = self._settings
        b1, b2 = settings.momentum, settings.second_moment_decay
        self._first.mul_(b1).add_(gradients, alpha=1 - b1)
        self._second.mul_(b2).addcmul_(gradients, gradients, value=1 - b2)
        root = (self._second / (1 - b2**self._steps)).sqrt_().add_(settings.adaptivity)
        keep = 1.0 - self._rate * settings.weight_decay
        return torch.addcdiv(
            self._parameters * keep, self._first, root, value=-self._rate / (1 - b1**self._steps)
        )


class MuonLanes:
    """Muon, as ``Muon``; everything but the hidden matrices takes the steps of ``AdamWLanes``.

    Args:
        settings: Weight decay, decay of momenta, constants of AdamW.
        parameters: ``[lanes, parameters]``.
        model: The model whose hidden matrices are orthogonalised.
    """

    def __init__(self, settings: ClientSettings, parameters: Tensor, model: Model) -> None:
        self._rate = settings.learning_rate
        self._settings = settings
        self._parameters = parameters
        self._matrices, _ = split_hidden(model)
        self._adamw = AdamWLanes(settings, parameters, model)
        self._momenta = torch.zeros_like(parameters)

    def begin(self, learning_rate: float) -> None:
        """Set the learning rate and reset momenta and moments."""
        self._rate = learning_rate
        self._adamw.begin(learning_rate)
        self._momenta.zero_()

    def step(self, gradients: Tensor, active: Tensor) -> None:
        """Take a step, as ``LaneOptimizer.step``."""
        decay, keep = self._settings.momentum, 1.0 - self._rate * self._settings.weight_decay
        stepped = self._adamw.stepped(gradients)
        self._momenta.mul_(decay).add_(gradients)
        for matrix in self._matrices:
            slope, momentum, weights = map(matrix.of, (gradients, self._momenta, self._parameters))
            direction = orthogonalised(torch.add(slope, momentum, alpha=decay))
            new = torch.add(weights * keep, direction, alpha=-self._rate * matrix.scale)
            matrix.of(stepped).copy_(new)
        torch.where(active, stepped, self._parameters, out=self._parameters)


def build_lanes(settings: ClientSettings, parameters: Tensor, model: Model) -> LaneOptimizer:
    """Return the optimizer in the settings for a model's parameters ``[lanes, parameters]``."""
    table = load(OPTIMIZERS[settings.optimizer].lanes)
    optimizer: LaneOptimizer = table(settings, parameters, model)
    return optimizer
