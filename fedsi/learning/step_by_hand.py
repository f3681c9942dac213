"""One local step without autograd: packed batch, gradients by hand, updates in place.

If no gradient must be known before it is applied, as in SGD without clipping, every matrix product
is added directly to the parameters. Tests compare it with its slow twin, the model's functions
under autograd.
"""

import torch
from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.output import UpdateRule
from fedsi.learning.algorithms.algorithm import NO_PULL, Pull
from fedsi.learning.first_steps import FirstStep
from fedsi.learning.gradient_clipping import is_clipped, step_scale
from fedsi.learning.optimizers.optimizer import build_optimizer
from fedsi.learning.optimizers.table import OPTIMIZERS
from fedsi.learning.pulled import add_pull, add_vector
from fedsi.models.model import Model
from fedsi.models.table import architecture
from fedsi.tables import load
from fedsi.tasks.task import Batch


class FusedSgd:
    """Takes steps on parameters in place, reusing memory from step to step.

    Args:
        model: A model whose architecture has a gradient by hand.
        settings: The settings of local training.
        parameters: The parameters to train, ``[parameters]``.
    """

    def __init__(self, model: Model, settings: ClientSettings, parameters: Tensor) -> None:
        self._settings = settings
        self._products = Products(settings)
        self._flat = parameters
        self._named = model.layout.views(parameters)
        self.optimizer = build_optimizer(settings, parameters, model)
        self.clipped = 0
        """Steps whose gradient was clipped."""
        at_once = is_clipped(settings) or not OPTIMIZERS[settings.optimizer].is_linear
        self._gradient = torch.zeros_like(parameters) if at_once else None
        self._into = self._named if self._gradient is None else model.layout.views(self._gradient)
        by_hand = architecture(model.settings.architecture).by_hand
        assert by_hand is not None, "it is trained by autograd"  # noqa: S101
        self._pass = load(by_hand)(model, self._named)

    def step(
        self, batch: Batch, pull: Pull = NO_PULL, first: FirstStep | None = None
    ) -> tuple[float, int]:
        """Take one step with the clipped gradient of the mean loss, plus the pull.

        Args:
            batch: A batch with at least one target.
            pull: The algorithm's pull.
            first: The gradient, if it was computed with those of other clients.

        Returns:
            The sum of the targets' losses before the step, in nats, and their number.

        Raises:
            UserError: A sequence is longer than a Transformer's learned positions.
        """
        targets = batch.count
        rate = self.optimizer.learning_rate
        if self._gradient is None:
            keep = 1.0 - rate * (self._settings.weight_decay + pull.strength)
            loss = self._run(batch, first, UpdateRule(self._products, keep, -rate / targets))
            add_vector(self._flat, pull, -rate)
            return loss, targets
        self._gradient.zero_()
        loss = self._run(batch, first, UpdateRule(self._products, 1.0, 1.0 / targets))
        scale = step_scale(self._settings, rate, self._gradient, self._flat)
        self.clipped += scale != 1.0
        self.optimizer.step(self._gradient, add_pull(self._gradient, scale, self._flat, pull))
        return loss, targets

    def _run(self, batch: Batch, first: FirstStep | None, update: UpdateRule) -> float:
        """Apply the gradient of a batch's summed losses and return their sum."""
        if first is None:
            return float(self._pass.run(batch, self._into, update))
        first.apply(self._into, update)
        return first.loss
