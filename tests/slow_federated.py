"""Slow, simple references for federated training: autograd in float64, client by client.

They use parts of the program that are tested elsewhere: the clients of a round, the batches of a
client, the model's functions and its initial parameters.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedsi import Experiment
from fedsi.data.batches import training_batches
from fedsi.data.population import ClientExamples, Population
from fedsi.data.prepare import open_population, prepare
from fedsi.data.protocol import PAD
from fedsi.models.build import build_model, initial_parameters
from server.cohorts.sampling import draw_cohort

Added = Callable[[Tensor], Tensor]
"""What an algorithm adds to a gradient, given the client's parameters."""


class SlowClients:
    """The clients of an experiment without privacy, whose server optimizer is plain SGD of rate 1.

    Args:
        experiment: The experiment.
        cache: Folder of its population.
    """

    def __init__(self, experiment: Experiment, cache: Path) -> None:
        assert (experiment.server.optimizer, experiment.server.learning_rate) == ("sgd", 1.0)
        self.experiment = experiment
        self.population: Population = open_population(prepare(experiment.data, cache))
        self.model = build_model(experiment, self.population.description.vocabulary_size)

    @property
    def training_clients(self) -> int:
        return self.population.description.training_clients

    def start(self) -> Tensor:
        return initial_parameters(self.model, self.experiment.seed).double()

    def rate(self, number: int) -> float:
        """Return the clients' learning rate in a round."""
        client = self.experiment.client
        schedule, rounds = client.learning_rate_schedule, self.experiment.server.rounds
        return client.learning_rate * schedule.factor(number, rounds)

    def cohort(self, number: int) -> list[int]:
        population = self.training_clients
        drawn = draw_cohort(self.experiment, population, None, number, self.experiment.seed)
        return [int(client) for client in drawn.reporting]

    def weight(self, client: int, number: int) -> float:
        if self.experiment.server.averaging == "uniform":
            return 1.0
        return float(sum(len(rows) for rows in self._rows(client, number)))

    def train(
        self, client: int, number: int, start: Tensor, added: Added | None = None
    ) -> tuple[Tensor, int]:
        """Return a client's parameters after local SGD, and the number of its steps."""
        settings, theta, steps = self.experiment.client, start.clone(), 0
        for rows in self._rows(client, number):
            leaf = theta.clone().requires_grad_()
            named = self.model.layout.views(leaf)
            inputs, targets = (
                torch.from_numpy(part).long() for part in (rows[:, :-1], rows[:, 1:])
            )
            logits = self.model.logits(named, self.model.features(named, inputs))
            loss = functional.cross_entropy(logits.mT, targets, ignore_index=PAD)
            (gradient,) = torch.autograd.grad(loss, leaf)
            if settings.gradient_clip is not None:
                gradient *= min(1.0, settings.gradient_clip / float(gradient.norm()))
            gradient = gradient + settings.weight_decay * theta
            if added:
                gradient = gradient + added(theta)
            theta = theta - self.rate(number) * gradient
            steps += 1
        return theta, steps

    def _rows(self, client: int, number: int) -> Iterator[NDArray[np.int32]]:
        experiment = self.experiment
        yield from training_batches(
            ClientExamples(self.population, client, number),
            experiment.client,
            experiment.data.max_examples_per_client,
            seed=experiment.seed,
            round_number=number,
            client=client,
        )


def relative_distance(found: Tensor, expected: Tensor, start: Tensor) -> float:
    """Return the distance of two models relative to the distance covered by training."""
    return float((found - expected).norm() / (expected - start).norm())
