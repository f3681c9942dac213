"""Blocks: the members of a cohort that one node trains and sums, one after the other.

Each update is added exactly, as fixed point, so neither order nor blocks can matter: the result
has the same bits whatever the number of nodes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.data.batches import evaluation_batches, poisson_batches, training_batches
from fedsi.data.population import ClientExamples, Population
from fedsi.errors import DamagedError
from fedsi.experiment import Experiment
from fedsi.learning.client import LocalResult, LocalTrainer, evaluate
from fedsi.learning.example_private import ExamplePrivateTrainer
from fedsi.learning.failures import FailureLog
from fedsi.limits import largest_contribution
from fedsi.messages import TRAINING_COLUMNS, Outcome
from fedsi.models.build import build_model
from fedsi.privacy import canaries
from fedsi.privacy.streams import noise_key, normal_for_examples
from fedsi.sums.clipping import add_clipped, layer_ends
from fedsi.sums.updates import add_update
from fedsi.tasks.table import task_of

EVALUATION_BATCH = 64


def _untold(_client: int) -> None:
    """Let a client pass."""


@dataclass
class BlockTrainer:
    """Trains blocks of clients of a population.

    Args:
        experiment: The configuration.
        population: The clients.
        at: Told each client before it is trained or evaluated.
    """

    experiment: Experiment
    population: Population
    at: Callable[[int], None] = _untold

    def __post_init__(self) -> None:
        self.model = build_model(self.experiment, self.population.description.vocabulary_size)
        self.task = task_of(self.experiment)
        settings, losses = self.experiment.client, self.task.losses
        self._trainer: LocalTrainer | ExamplePrivateTrainer = (
            LocalTrainer(self.model, settings, losses)
            if settings.example_noise_multiplier is None
            else ExamplePrivateTrainer(self.model, settings, losses)
        )
        self._unigram = torch.tensor(self.population.unigram_log_probabilities)
        cohort = self.experiment.server.largest_cohort
        self._limit = np.float32(largest_contribution(cohort))
        shapes = list(self.model.layout.shapes.values())
        self._layer_ends = layer_ends(shapes, self.experiment.privacy.clipping)
        self._noise_key = noise_key(self.experiment, self.population.description.content_digest)
        self._failures = FailureLog()

    def train(
        self,
        start: Tensor,
        clients: Sequence[int],
        round_number: int,
        sums: NDArray[np.int64],
        clip_norm: float = math.inf,
    ) -> NDArray[np.float64]:
        """Train one block.

        Args:
            start: The global parameters, ``[parameters]``.
            clients: The block's members, in cohort order; canaries from ``canaries.FIRST`` on.
            round_number: The round.
            sums: What the fixed-point sum of weighted updates is added to, ``[parameters]``.
            clip_norm: Largest L2 norm of an update; infinite for no clipping.

        Returns:
            A row for each client in the order of ``TRAINING_COLUMNS``.
        """
        rows = np.zeros((len(clients), len(TRAINING_COLUMNS)))
        schedule = self.experiment.client.learning_rate_schedule
        rounds = self.experiment.server.rounds
        self._trainer.begin(start, schedule.factor(round_number, rounds))
        for row, client in zip(rows, clients, strict=True):
            self.at(client)
            try:
                result = (
                    self._play_canary(start, client - canaries.FIRST, clip_norm)
                    if client >= canaries.FIRST
                    else self._train_client(client, round_number)
                )
            except DamagedError:
                raise  # not the client's fault: results that rest on the file would be wrong
            except (Exception, SystemExit) as error:
                self._failures.add(client, error)
                row[0] = Outcome.FAILED
                continue
            weight = self._weight(result)
            accepted, norm, clipped = self._add(start, weight, sums, clip_norm)
            row[:] = (
                Outcome.AGGREGATED if accepted else Outcome.REJECTED,
                weight if accepted else 0.0,
                result.examples,
                result.tokens,
                result.loss,
                norm,
                clipped,
            )
        self._failures.tell(f"failed in round {round_number}", len(clients))
        return rows

    def evaluate(self, parameters: Tensor, clients: Sequence[int]) -> NDArray[np.float64]:
        """Evaluate clients one by one.

        Args:
            parameters: The global parameters, ``[parameters]``.
            clients: Indices in the population.

        Returns:
            A row for each client in the order of ``Task.columns``; all NaN where one failed.
        """
        views = self.model.layout.views(parameters)
        rows = np.zeros((len(clients), len(self.task.columns)))
        for row, client in zip(rows, clients, strict=True):
            self.at(client)
            try:
                examples = ClientExamples(self.population, client)
                cap = self.experiment.data.max_examples_per_client
                drawn = evaluation_batches(examples, EVALUATION_BATCH, cap)
                batches = map(self.task.batch, drawn)
                row[:] = evaluate(self.task, self.model, views, batches, self._unigram)
            except DamagedError:
                raise  # not the client's fault: results that rest on the file would be wrong
            except (Exception, SystemExit) as error:
                self._failures.add(client, error)
                row[:] = np.nan
        self._failures.tell("could not be evaluated", len(clients))
        return rows

    def _train_client(self, client: int, round_number: int) -> LocalResult:
        experiment, examples = self.experiment, ClientExamples(self.population, client)
        key = {"seed": experiment.seed, "round_number": round_number, "client": client}
        if isinstance(self._trainer, ExamplePrivateTrainer):
            nominal = experiment.nominal_examples
            noise = partial(normal_for_examples, self._noise_key, round_number, client)
            batches = poisson_batches(examples, experiment.client, nominal, **key)
            return self._trainer.train(map(self.task.batch, batches), noise)
        cap = experiment.data.max_examples_per_client
        batches = training_batches(examples, experiment.client, cap, **key)
        return self._trainer.train(map(self.task.batch, batches))

    def _play_canary(self, start: Tensor, canary: int, clip_norm: float) -> LocalResult:
        """Make the update of a canary, which has no examples, in place of training."""
        direction = canaries.direction(self.experiment.seed, canary, len(start))
        update = torch.from_numpy(direction).mul_(canaries.RAW_NORM * clip_norm)
        torch.add(start, update, out=self._trainer.parameters)
        self._trainer.spans = np.array([[0, len(start)]])
        return LocalResult(loss=0.0, tokens=0, examples=0)

    def _add(
        self, start: Tensor, weight: float, sums: NDArray[np.int64], clip_norm: float
    ) -> tuple[bool, float, bool]:
        """Add the update of the client just trained, clipped or weighted, if it is finite.

        Returns:
            Whether it was added, its norm before clipping, and whether it was clipped.
        """
        vectors = start.numpy(), self._trainer.parameters.numpy()
        if math.isinf(clip_norm):
            accepted = add_update(
                *vectors, self._trainer.spans, np.float32(weight), self._limit, sums
            )
            return accepted, 0.0, False
        norm, clipped = add_clipped(*vectors, self._layer_ends, clip_norm, sums)
        return math.isfinite(norm), norm if math.isfinite(norm) else 0.0, clipped

    def _weight(self, result: LocalResult) -> float:
        return float(result.examples) if self.experiment.server.averaging == "examples" else 1.0
