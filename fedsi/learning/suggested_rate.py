"""A learning rate from the size of one step, before any round is spent.

The rate at which one local step changes the last hidden layer by a given amount, as arXiv
2305.07810 chooses it for deep ReLU networks: there the mean square of the change of the last
layer's pre-activations is fixed, and the rate follows depth^-1.5. Here the change is measured, so
it needs no theory of the architecture, and it is relative to the layer, whose scale differs between
architectures.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsi.data.batches import training_batches
from fedsi.data.population import ClientExamples, Population
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.learning.client import LocalTrainer
from fedsi.learning.predictions import batch_features
from fedsi.models.build import model_for
from fedsi.models.hidden import hidden_seen
from fedsi.models.model import Model
from fedsi.seeds import Purpose, generator
from fedsi.tasks.table import task_on
from fedsi.tasks.task import Batch, Task

USUAL_CHANGE = 0.1
"""Root mean square of the change of the last hidden layer, relative to that of the layer."""
USUAL_CLIENTS = 8

_TRIED_PER_CLIENT = 4
"""Clients drawn for each one that is used, because some have no examples."""
_TOLERANCE = 1e-3
"""Largest error of the logarithm of the change."""
_LARGEST_FACTOR = 4.0
"""Largest ratio of a rate that is tried to the one before, so that the first crossing is found."""
_MOST_TRIALS = 80


@dataclass(frozen=True)
class SuggestedRate:
    """A learning rate, and the measurements that it is the median of."""

    rate: float
    """Value for ``client.learning_rate``."""
    lowest: float
    """Lowest rate of a client."""
    highest: float
    clients: int
    targets: int
    """Targets of all batches."""
    change: float
    """Change of the last hidden layer by a step at this rate."""
    own_rate: float
    """The experiment's ``client.learning_rate``."""
    own_change: float
    """Median change by a step at that rate; infinite if the step diverges."""


class NoRateError(ValueError):
    """No learning rate gives the wanted change."""


def suggest_rate(
    experiment: Experiment,
    population: Population,
    start: Tensor,
    change: float = USUAL_CHANGE,
    clients: int = USUAL_CLIENTS,
) -> SuggestedRate:
    """Measure one step of a few clients, each on its first batch of the first round.

    A pure function of its arguments. The steps are those of local training: of its optimizer, with
    its clipping and weight decay, without a schedule.

    Args:
        experiment: The configuration.
        population: The clients.
        start: The initial parameters, ``[parameters]``.
        change: Wanted change of the last hidden layer, relative to the layer, in root mean square.
        clients: Clients to measure.

    Raises:
        UserError: The clients' steps are noisy, no drawn client has examples, or no rate gives the
            change.
    """
    if experiment.client.example_noise_multiplier is not None:
        raise UserError(
            "the rate is measured on steps without noise, and client.example_noise_multiplier is "
            f"{experiment.client.example_noise_multiplier}; set it to none"
        )
    model = model_for(experiment, population)
    task = task_on(experiment, population)
    steps = _Steps(experiment, model, task, start)
    rates, own, targets = [], [], 0
    for batch in _first_batches(experiment, population, task, clients):
        moved = steps.on(batch)
        try:
            rates.append(rate_of_change(moved, change, experiment.client.learning_rate))
        except NoRateError as error:
            raise UserError(f"no learning rate can be suggested: {error}") from None
        now = moved(experiment.client.learning_rate)
        own.append(now if math.isfinite(now) else math.inf)
        targets += batch.count
    if not rates:
        raise UserError(
            "none of the clients that were drawn has examples, so no step can be measured; use a "
            "corpus or partition with more text for each client"
        )
    return SuggestedRate(
        rate=math.exp(float(np.median(np.log(rates)))),
        lowest=min(rates),
        highest=max(rates),
        clients=len(rates),
        targets=targets,
        change=change,
        own_rate=experiment.client.learning_rate,
        own_change=float(np.median(own)),
    )


def rate_of_change(moved: Callable[[float], float], change: float, first: float) -> float:
    """Return the lowest learning rate at which a step changes something by a given amount.

    Args:
        moved: Change at a rate; it grows with it at first, proportionally or slower. A change that
            is not finite counts as too large.
        change: The wanted change.
        first: The rate to try first.

    Raises:
        NoRateError: The change stays smaller, or larger, at every rate.
    """

    def excess(rate: float) -> float:
        found = moved(rate)
        if not math.isfinite(found):
            return math.inf
        return math.log(found / change) if found > 0 else -math.inf

    low, high = (-math.inf, -math.inf), (math.inf, math.inf)  # log rate, log change
    at = math.log(first)
    for _ in range(_MOST_TRIALS):
        off = excess(math.exp(at))
        if abs(off) < _TOLERANCE or high[0] - low[0] < _TOLERANCE**2:
            return math.exp(at)
        low, high = ((at, off), high) if off < 0 else (low, (at, off))
        at = _next_trial(low, high)
    raise NoRateError(
        f"a step changes the last hidden layer by {moved(math.exp(at)):.3g} of itself at the rate "
        f"{math.exp(at):.3g}, and {change:g} was wanted; change the amount, or leave the clipping "
        "out"
    )


def _next_trial(low: tuple[float, float], high: tuple[float, float]) -> float:
    """Return the logarithm of the next rate from the closest ones on both sides of the change.

    Outside of them the change is taken to be proportional to the rate; between them it is linear in
    the logarithms, away from the ends so that both come closer.
    """
    limit = math.log(_LARGEST_FACTOR)
    if math.isinf(low[0]):
        return high[0] - min(limit, high[1])
    if math.isinf(high[0]):
        return low[0] + min(limit, -low[1])
    if math.isinf(low[1]) or math.isinf(high[1]):
        return (low[0] + high[0]) / 2
    share = -low[1] / (high[1] - low[1])
    return low[0] + min(0.95, max(0.05, share)) * (high[0] - low[0])


class _Steps:
    """Single local steps from the same parameters."""

    def __init__(self, experiment: Experiment, model: Model, task: Task, start: Tensor) -> None:
        settings = experiment.local_training
        self._factor = 1 / experiment.client.learning_rate
        self._trainer = LocalTrainer(model, settings, task.losses)
        self._model, self._start = model, start

    def on(self, batch: Batch) -> Callable[[float], float]:
        """Return the relative change of the last hidden layer on a batch by a step on it.

        It is a function of the value of ``client.learning_rate``.
        """
        before = self._hidden(self._start, batch)
        size = float(before.norm())
        if not size > 0:
            raise UserError(
                "the last hidden layer of the untrained model is 0 on a client's batch, so no "
                "change is relative to it; draw the weights before it, or start from a trained "
                "model with model.init_from"
            )

        def moved(rate: float) -> float:
            self._trainer.begin(self._start, rate * self._factor)
            self._trainer.train([batch])
            return float((self._hidden(self._trainer.parameters, batch) - before).norm()) / size

        return moved

    def _hidden(self, flat: Tensor, batch: Batch) -> Tensor:
        """Return the last hidden layer at the targets, float64 ``[targets, *]``.

        All positions of a custom model whose last dense layer has no row for each.
        """
        named = self._model.layout.views(flat)
        with torch.inference_mode(), hidden_seen(self._model) as seen:
            layer = batch_features(self._model, named, batch)
        layer = seen[0] if seen else layer
        if layer.shape[:2] == batch.asked.shape:
            layer = layer[torch.from_numpy(batch.asked)]
        return layer.double()


def _first_batches(
    experiment: Experiment, population: Population, task: Task, clients: int
) -> Iterator[Batch]:
    """Yield the first batch of the first round of some training clients that have one."""
    there = population.description.training_clients
    rng = generator(experiment.seed, Purpose.RATE_CLIENTS)
    drawn = rng.choice(there, min(there, _TRIED_PER_CLIENT * clients), replace=False)
    left = clients
    for client in drawn.tolist():
        batches = training_batches(
            ClientExamples(population, client, 1),
            experiment.client,
            experiment.data.max_examples_per_client,
            seed=experiment.seed,
            round_number=1,
            client=client,
        )
        batch = next(map(task.batch, batches), None)
        if left and batch is not None and batch.count:
            left -= 1
            yield batch
