"""Blocks: the members of a cohort that one node trains and sums, one after the other.

Each update is added exactly, as fixed point, so neither order nor blocks can matter: the result
has the same bits whatever the number of nodes.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.data.batches import evaluation_batches, training_batches
from fedsi.data.population import Population
from fedsi.experiment import Experiment
from fedsi.models.build import build_model
from fedsi.training.fixed_point import add_update, largest_contribution
from fedsi.training.local import LocalResult, LocalTrainer, evaluate
from fedsi.training.metrics import COLUMNS

log = logging.getLogger(__name__)

EVALUATION_BATCH = 64


class Outcome(IntEnum):
    """What became of a client in a round."""

    AGGREGATED = 0
    REJECTED = 1
    """Its update was not finite, or too large to be summed exactly."""
    FAILED = 2
    """It could not be trained or evaluated."""


TRAINING_COLUMNS = ("outcome", "weight", "examples", "tokens", "loss")
"""Columns of the per-client rows that training returns."""


@dataclass
class BlockTrainer:
    """Trains blocks of clients of a population.

    Args:
        experiment: The configuration.
        population: The clients.
    """

    experiment: Experiment
    population: Population

    def __post_init__(self) -> None:
        self.model = build_model(self.experiment, self.population.description.vocabulary_size)
        self._trainer = LocalTrainer(self.model, self.experiment.client)
        self._unigram = torch.tensor(self.population.unigram_log_probabilities)
        cohort = self.experiment.server.largest_cohort
        self._limit = np.float32(largest_contribution(cohort))

    def train(
        self, start: Tensor, clients: Sequence[int], round_number: int, sums: Tensor
    ) -> NDArray[np.float64]:
        """Train one block.

        Args:
            start: The global parameters, ``[parameters]``.
            clients: The block's members, in cohort order.
            round_number: The round.
            sums: What the fixed-point sum of weighted updates is added to, int64 ``[parameters]``.

        Returns:
            A row for each client in the order of ``TRAINING_COLUMNS``.
        """
        rows = np.zeros((len(clients), len(TRAINING_COLUMNS)))
        for row, client in zip(rows, clients, strict=True):
            try:
                result = self._train_client(start, client, round_number)
            except Exception:
                log.exception("client %d failed in round %d", client, round_number)
                row[0] = Outcome.FAILED
                continue
            weight = self._weight(result)
            trained = self._trainer.parameters.numpy()
            accepted = add_update(
                start.numpy(), trained, np.float32(weight), self._limit, sums.numpy()
            )
            row[:] = (
                Outcome.AGGREGATED if accepted else Outcome.REJECTED,
                weight if accepted else 0.0,
                result.examples,
                result.tokens,
                result.loss,
            )
        return rows

    def evaluate(self, parameters: Tensor, clients: Sequence[int]) -> NDArray[np.float64]:
        """Evaluate clients one by one.

        Args:
            parameters: The global parameters, ``[parameters]``.
            clients: Indices in the population.

        Returns:
            A row for each client in the order of ``metrics.COLUMNS``; zeros where a client failed.
        """
        views = self.model.layout.views(parameters)
        rows = np.zeros((len(clients), len(COLUMNS)))
        for row, client in zip(rows, clients, strict=True):
            try:
                examples = self.population.examples(client)
                cap = self.experiment.data.max_examples_per_client
                batches = evaluation_batches(examples, EVALUATION_BATCH, cap)
                row[:] = evaluate(self.model, views, batches, self._unigram).row()
            except Exception:
                log.exception("client %d could not be evaluated", client)
        return rows

    def _train_client(self, start: Tensor, client: int, round_number: int) -> LocalResult:
        batches = training_batches(
            self.population.examples(client),
            self.experiment.client,
            self.experiment.data.max_examples_per_client,
            seed=self.experiment.seed,
            round_number=round_number,
            client=client,
        )
        return self._trainer.train(start, batches)

    def _weight(self, result: LocalResult) -> float:
        return float(result.examples) if self.experiment.server.averaging == "examples" else 1.0
