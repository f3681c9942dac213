"""One local step for any model, with its gradient by autograd.

It has the same contract as ``FusedSgd`` and is slower; it trains models without a gradient by hand.
"""

import torch
from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.learning.algorithms.algorithm import NO_PULL, Pull
from fedsi.learning.gradient_clipping import step_scale
from fedsi.learning.optimizers.optimizer import build_optimizer
from fedsi.learning.predictions import penalised_predictions
from fedsi.learning.pulled import add_pull
from fedsi.models.model import Model
from fedsi.tasks.task import Batch, Losses, cross_entropy


class GeneralSgd:
    """Takes steps on parameters in place.

    Args:
        model: The model's functions.
        settings: The settings of local training.
        parameters: The parameters to train, ``[parameters]``.
        losses: The loss of each target, as ``Task.losses``.
    """

    def __init__(
        self,
        model: Model,
        settings: ClientSettings,
        parameters: Tensor,
        losses: Losses = cross_entropy,
    ) -> None:
        self.optimizer = build_optimizer(settings, parameters, model)
        self.clipped = 0
        """Steps whose gradient was clipped."""
        self._settings = settings
        self._flat = parameters
        self._model = model
        self._losses = losses
        self._layout = model.layout

    def step(self, batch: Batch, pull: Pull = NO_PULL) -> tuple[float, int]:
        """Take one step with the clipped gradient of the mean loss, plus the pull.

        Args:
            batch: A batch with at least one target.
            pull: The algorithm's pull.

        Returns:
            The sum of the targets' losses before the step, in nats, and their number.
        """
        leaf = self._flat.detach().requires_grad_()
        views = self._layout.views(leaf)
        outputs, targets, penalty = penalised_predictions(self._model, views, batch)
        loss = self._losses(outputs, targets).mean()
        trained = loss if penalty is None else loss + penalty
        (gradient,) = torch.autograd.grad(trained, leaf)
        scale = step_scale(self._settings, self.optimizer.learning_rate, gradient, self._flat)
        self.clipped += scale != 1.0
        self.optimizer.step(gradient, add_pull(gradient, scale, self._flat, pull))
        return loss.item() * batch.count, batch.count
