"""One local step of many clients at once, each in its own lane.

Clients are trained one after another everywhere else, which leaves a GPU idle between the launches
of small kernels. Here ``lanes`` clients step together: their parameters are ``[lanes,
parameters]``, their batches ``[lanes, batch, time]``, and the gradients of all lanes come from one
call of ``torch.func.vmap`` over the gradient of the model's functions.

A lane's arithmetic must not depend on the other lanes, so that the bits of a client depend neither
on its cohort nor on the number of workers. Therefore all shapes are fixed by the experiment and the
client alone: the number of lanes is ``client.lanes`` (a group with fewer clients has empty lanes),
the batch is ``client.batch_size``, and the time is the client's longest text rounded up to a
multiple of ``TIME_STEP``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad_and_value, vmap

from fedsi.data.protocol import PAD
from fedsi.experiment import ClientSettings
from fedsi.learning.algorithms.algorithm import Pull
from fedsi.learning.optimizers.lanes import build_lanes
from fedsi.models.model import Model
from fedsi.models.table import is_penalised
from fedsi.tasks.task import Batch, Losses, cross_entropy

TIME_STEP = 8
"""Texts of a group are padded to the next multiple of this number of tokens."""


@dataclass(frozen=True)
class Member:
    """A client of a group."""

    batches: Sequence[Batch]
    """Its batches, one step each."""
    pull: Pull
    """The algorithm's pull, added to every step's gradient."""
    time: int
    """The length to which its batches are padded."""

    @classmethod
    def of(cls, batches: Sequence[Batch], pull: Pull, longest: int | None) -> Self:
        """Return the member for a client's batches.

        Args:
            batches: The client's.
            pull: The algorithm's.
            longest: The largest number of tokens that the model can read; None for any number.
        """
        longest_text = max((batch.inputs.shape[1] for batch in batches), default=1)
        time = -(-max(longest_text, 1) // TIME_STEP) * TIME_STEP
        return cls(batches, pull, time if longest is None else min(time, longest))


@dataclass(frozen=True)
class StepCounts:
    """Results of the steps of a group, ``[lanes]`` each."""

    loss: NDArray[np.float64]
    """Sum of the targets' losses before the step that used them, in nats."""
    clipped: NDArray[np.int64]
    """Steps whose gradient was clipped."""


class VectorisedSgd:
    """Trains groups of clients from the same start.

    Args:
        model: The model's functions.
        settings: The settings of local training.
        start: The global parameters, ``[parameters]``; their precision and device are used.
        losses: The loss of each target, as ``Task.losses``.
    """

    def __init__(
        self,
        model: Model,
        settings: ClientSettings,
        start: Tensor,
        losses: Losses = cross_entropy,
    ) -> None:
        self.parameters = start.new_zeros(settings.lanes, model.layout.size)
        """The clients' parameters after ``train``, ``[lanes, parameters]``; the start in empty
        lanes."""
        self._settings = settings
        self._optimizer = build_lanes(settings, self.parameters, model)
        self._gradients = vmap(grad_and_value(_mean_loss(model, losses), has_aux=True))

    def train(self, start: Tensor, group: Sequence[Member], learning_rate: float) -> StepCounts:
        """Train a group; the results are in ``parameters``.

        Args:
            start: The global parameters, ``[parameters]``.
            group: At most as many clients as there are lanes, of equal ``Member.time``.
            learning_rate: The learning rate of the round.
        """
        self.parameters.copy_(start.expand_as(self.parameters))
        self._optimizer.begin(learning_rate)
        pull = self._pull(group)
        loss = self.parameters.new_zeros(len(self.parameters), dtype=torch.float64)
        clipped = torch.zeros_like(loss, dtype=torch.int64)
        for step in range(max(len(member.batches) for member in group)):
            inputs, targets = self._tokens(group, step)
            counts = (targets != PAD).sum((1, 2))
            gradients, (_, means) = self._gradients(self.parameters, inputs, targets)
            loss += means.double() * counts
            clipped += self._clip(gradients, learning_rate)
            if pull is not None:
                strength, vectors = pull
                gradients.addcmul_(strength, self.parameters).add_(vectors)
            taking = [step < len(member.batches) for member in group]
            self._optimizer.step(gradients, self._lanes(taking, torch.bool))
        return StepCounts(loss.cpu().numpy(), clipped.cpu().numpy())

    def _tokens(self, group: Sequence[Member], step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs and targets of a step, ``[lanes, batch, time]``, padded."""
        shape = len(self.parameters), self._settings.batch_size, group[0].time
        padded = np.full((2, *shape), PAD, np.int64)
        for lane, member in enumerate(group):
            if step < len(member.batches):
                batch = member.batches[step]
                rows, time = batch.inputs.shape
                padded[:, lane, :rows, :time] = batch.inputs, batch.targets
        inputs, targets = torch.from_numpy(padded).to(self.parameters.device)
        return inputs, targets

    def _clip(self, gradients: Tensor, learning_rate: float) -> Tensor:
        """Clip each lane's gradient in place; return which were clipped, ``[lanes]``."""
        settings = self._settings
        if settings.gradient_clip is not None:
            limits = gradients.new_full((len(gradients),), settings.gradient_clip)
        elif settings.relative_clip is not None:
            ratio = (2 * settings.weight_decay / learning_rate) ** 0.5 if learning_rate else np.inf
            norms = torch.linalg.vector_norm(self.parameters, dim=1)
            limits = settings.relative_clip * ratio * norms
        else:
            return gradients.new_zeros(len(gradients), dtype=torch.int64)
        norms = torch.linalg.vector_norm(gradients, dim=1)
        beyond = ~(norms <= limits)  # also a norm of NaN, whose lane becomes NaN
        gradients.mul_(torch.where(beyond, limits / norms, 1.0).unsqueeze(1))
        clipped: Tensor = beyond.long()
        return clipped

    def _pull(self, group: Sequence[Member]) -> tuple[Tensor, Tensor] | None:
        """Return the strengths, ``[lanes, 1]``, and vectors of the pulls; None without any."""
        pulls = [member.pull for member in group]
        if all(pull.adds_nothing for pull in pulls):
            return None
        vectors = torch.zeros_like(self.parameters)
        for lane, pull in enumerate(pulls):
            if pull.vector is not None:
                vectors[lane].copy_(torch.from_numpy(pull.vector))
        return self._lanes([pull.strength for pull in pulls], vectors.dtype), vectors

    def _lanes(self, values: Sequence[float], dtype: torch.dtype) -> Tensor:
        """Return a number for each lane, ``[lanes, 1]``; 0 in empty lanes."""
        numbers = torch.zeros(len(self.parameters), 1, dtype=dtype)
        numbers[: len(values), 0] = torch.tensor(values, dtype=dtype)
        return numbers.to(self.parameters.device)


def _mean_loss(
    model: Model, per_target: Losses
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return a function of a lane's parameters and padded batch.

    It returns what the lane trains on, and the mean loss without what training adds to it.
    """
    penalised = is_penalised(model.settings)

    def loss(parameters: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        views = model.layout.views(parameters)
        if penalised:
            features, penalty = cast("Any", model).features_and_penalty(views, inputs)
        else:
            features, penalty = model.features(views, inputs), None
        outputs = model.logits(views, features).flatten(0, 1)
        asked = (targets != PAD).flatten()
        losses = torch.where(asked, per_target(outputs, targets.flatten()), 0.0)
        mean: Tensor = losses.sum() / asked.sum().clamp_min(1)
        return mean if penalty is None else mean + penalty, mean

    return loss
