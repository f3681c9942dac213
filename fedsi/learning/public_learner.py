"""Training at the server: steps of a model on a public corpus, towards soft targets."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from fedsi.data.batches import trim
from fedsi.data.population import Population
from fedsi.data.protocol import Tokens
from fedsi.experiment import ClientSettings, Experiment
from fedsi.learning.algorithms.algorithm import Vector
from fedsi.learning.client import LocalTrainer
from fedsi.learning.pooled import pooled_batches
from fedsi.learning.random_starts import started
from fedsi.learning.soft_targets import SoftTargets
from fedsi.models.build import build_model
from fedsi.seeds import Purpose, generator
from fedsi.tasks.table import task_on
from fedsi.tasks.task import Batch
from fedsi.threads import torch_threads

NO_CLIENT = 2**62
"""Stands for the server where a random draw names its client."""


class PublicExamples:
    """The examples of all clients of a population, numbered from 0.

    Args:
        population: The population.
    """

    def __init__(self, population: Population) -> None:
        facts = population.description
        clients = range(facts.training_clients + facts.heldout_clients)
        self._population = population
        self._ends = np.cumsum([population.count(client) for client in clients])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, numbers: NDArray[np.int64]) -> Tokens:
        """Return examples, ``[numbers, time + 1]``, without columns that are padding in all."""
        owners = np.searchsorted(self._ends, numbers, side="right")
        firsts = self._ends[owners] - [self._population.count(k) for k in owners.tolist()]
        rows = [
            self._population.examples(owner, np.array([place]))
            for owner, place in zip(owners.tolist(), (numbers - firsts).tolist(), strict=True)
        ]
        return trim(np.concatenate(rows))


class PublicLearner:
    """Trains a model on public examples towards soft targets.

    Args:
        experiment: An experiment with ``algorithm.public_corpus``.
        population: The public corpus, with the run's vocabulary.
    """

    def __init__(self, experiment: Experiment, population: Population) -> None:
        self.model = build_model(experiment, population.description.vocabulary_size)
        settings = experiment.algorithm
        self._settings = ClientSettings(
            optimizer=settings.distillation_optimizer,
            learning_rate=settings.distillation_learning_rate,
            batch_size=settings.distillation_batch_size,
            max_steps=settings.distillation_steps,
        )
        self._examples = PublicExamples(population)
        self._task = task_on(experiment, population)
        self._experiment = experiment

    def train(self, start: Vector, targets: SoftTargets, round_number: int) -> Vector | None:
        """Return the parameters after one distillation; None if they are not finite.

        The bits depend on the arguments and the seed alone: on one thread, in memory allocated by
        torch, whose fixed alignment BLAS kernels depend on.

        Args:
            start: The parameters before it, ``[parameters]``.
            targets: The probabilities to imitate.
            round_number: The round.
        """
        trainer = LocalTrainer(self.model, self._settings, targets.losses)
        aligned = torch.empty(len(start))
        aligned.numpy()[:] = start
        batches = targets.before(self.batches(round_number))
        seed, model = self._experiment.seed, self._experiment.model
        with torch_threads(1):
            trainer.begin(aligned)
            trainer.train(started(batches, model, seed, round_number, NO_CLIENT))
        trained = trainer.parameters.numpy()
        return trained if np.isfinite(trained).all() else None

    def batches(self, round_number: int) -> Iterator[Batch]:
        """Yield the batches of a round's distillation, shuffled anew in each pass."""
        size, steps = self._settings.batch_size, self._settings.max_steps or 0
        examples = len(self._examples)
        passes = -(-steps // -(-examples // size))
        rng = generator(self._experiment.seed, Purpose.PUBLIC_ORDER, round_number)
        for numbers in pooled_batches(examples, size, passes, steps, rng):
            yield self._task.batch(self._examples[numbers])
