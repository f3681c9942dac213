"""DP-SGD on a client: each example's gradient is clipped, and noise is added to the batch's sum.

Abadi et al., "Deep Learning with Differential Privacy" (arXiv 1607.00133), algorithm 1. It protects
single examples from everyone but the client itself, which is a different guarantee than privacy of
a client at aggregation. Gradients of single examples are computed as in opacus' functional mode:
vectorised gradients of a function of one example.
"""

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad_and_value, vmap

from fedsi.experiment import ClientSettings
from fedsi.learning.algorithms.algorithm import NO_PULL, Pull
from fedsi.learning.client import LocalResult
from fedsi.learning.optimizers.optimizer import build_optimizer
from fedsi.learning.pulled import add_pull
from fedsi.models.model import Model
from fedsi.tasks.task import Batch, Losses, cross_entropy

Noise = Callable[[int, NDArray[np.float32]], NDArray[np.float32]]
"""``noise(step, hidden)`` returns independent standard normal numbers, ``[parameters]``."""


class ExamplePrivateTrainer:
    """Trains one client after another by DP-SGD.

    Args:
        model: The model's functions.
        settings: Local training with ``example_noise_multiplier``.
        losses: The loss of each target, as ``Task.losses``.
    """

    def __init__(
        self, model: Model, settings: ClientSettings, losses: Losses = cross_entropy
    ) -> None:
        self.parameters = torch.zeros(model.layout.size)
        """The client's parameters after ``train``, ``[parameters]``."""
        self.spans = np.array([[0, model.layout.size]])
        """All parameters may differ from the start."""
        self._settings = settings
        self._optimizer = build_optimizer(settings, self.parameters, model)
        self._start: Tensor | None = None
        self.learning_rate = settings.learning_rate
        self._gradients = vmap(grad_and_value(_loss_of(model, losses)), in_dims=(None, 0, 0, 0))

    def begin(self, start: Tensor, factor: float = 1.0) -> None:
        """Set the start of the next clients, as ``LocalTrainer.begin``."""
        self._start = start
        self.learning_rate = self._settings.learning_rate * factor

    def train(self, batches: Iterable[Batch], noise: Noise, pull: Pull = NO_PULL) -> LocalResult:
        """Run DP-SGD from the start over the batches; the result is in ``parameters``.

        Args:
            batches: Batches of rows drawn by ``poisson_batches``; some may be empty.
            noise: Returns standard normal numbers for a step, from 0, and the sum that they hide.
            pull: The algorithm's pull, added to every step's noisy gradient. It depends on the
                parameters alone, so it costs no privacy.
        """
        assert self._start is not None, "begin was not called"  # noqa: S101
        self.parameters.copy_(self._start)
        self.spans = np.array([[0, len(self._start)]])
        loss, tokens, examples, steps = 0.0, 0, 0, 0
        self._optimizer.begin(self.learning_rate)
        for batch in batches:
            step_loss, targets = self._step(batch, partial(noise, steps), pull)
            loss += step_loss
            tokens += targets
            examples += len(batch)
            steps += 1
        return LocalResult(loss=loss, tokens=tokens, examples=examples, steps=steps)

    def _step(
        self, batch: Batch, noise: Callable[[NDArray[np.float32]], NDArray[np.float32]], pull: Pull
    ) -> tuple[float, int]:
        settings = self._settings
        total = torch.zeros_like(self.parameters)
        loss = 0.0
        # A client may have many examples, and each gradient has the size of a model.
        for first in range(0, len(batch), settings.batch_size):
            part = slice(first, first + settings.batch_size)
            inputs, targets = (
                torch.from_numpy(tokens[part]).long() for tokens in (batch.inputs, batch.targets)
            )
            asked = torch.from_numpy(batch.asked[part])
            gradients, losses = self._gradients(self.parameters, inputs, targets, asked)
            total += clipped_sum(gradients, settings.example_clip_norm)
            counts = asked.sum(1)
            loss += float(losses.double() @ counts.double())
        scale = (settings.example_noise_multiplier or 0.0) * settings.example_clip_norm
        if scale:
            total.add_(torch.from_numpy(noise(total.numpy())), alpha=scale)
        # Divided by the nominal size of a batch, because its true size is not public. What the
        # optimizer does with noisy gradients, including its moments, is post-processing and costs
        # no privacy.
        nominal = 1 / settings.batch_size
        self._optimizer.step(total, add_pull(total, nominal, self.parameters, pull))
        return loss, batch.count


def clipped_sum(gradients: Tensor, clip_norm: float) -> Tensor:
    """Return the sum of rows, each clipped to the norm; rows that are not finite count as zero.

    Args:
        gradients: ``[examples, parameters]``.
        clip_norm: Largest L2 norm of a row.
    """
    norms = torch.linalg.vector_norm(gradients, dim=1)
    finite = torch.isfinite(norms)
    factors = torch.where(finite, (clip_norm / norms).clamp_max(1.0), 0.0)
    return factors @ torch.where(finite.unsqueeze(1), gradients, 0.0)


def _loss_of(
    model: Model, per_target: Losses
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return the mean loss of one example as a function of parameters and its part of a batch."""

    def loss(parameters: Tensor, inputs: Tensor, targets: Tensor, asked: Tensor) -> Tensor:
        views = model.layout.views(parameters)
        logits = model.logits(views, model.features(views, inputs.unsqueeze(0)))[0]
        losses = per_target(logits, targets)
        there = asked.to(losses.dtype)
        mean: Tensor = (losses * there).sum() / there.sum().clamp_min(1.0)
        return mean

    return loss
