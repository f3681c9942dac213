"""Training of a block: the members of a cohort that one node trains and sums.

Each update is added exactly, in fixed point, so the result has the same bits for any order and any
number of nodes.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.data.batches import evaluation_batches
from fedsi.data.population import Population, client_blocks
from fedsi.errors import DamagedError
from fedsi.experiment import Experiment
from fedsi.learning.algorithms.algorithm import Contribution, Vectors
from fedsi.learning.algorithms.table import algorithm_of
from fedsi.learning.client import LocalResult
from fedsi.learning.client_round import (
    Added,
    ClientRounds,
    Failed,
    Finished,
    Kept,
    RoundRequest,
    Sums,
    TrainingWay,
)
from fedsi.learning.evaluation import JoinedEvaluation, can_join_evaluations, evaluate_client
from fedsi.learning.failures import FailureLog
from fedsi.learning.norm_bound import within_bound
from fedsi.learning.one_by_one import OneByOne
from fedsi.learning.personal import Personaliser
from fedsi.learning.vectorised import Vectorised
from fedsi.limits import largest_contribution
from fedsi.messages import TRAINING_COLUMNS, Outcome
from fedsi.models.build import model_for
from fedsi.sums.clipping import add_clipped, layer_ends, move_clipped
from fedsi.sums.updates import add_update
from fedsi.tasks.table import task_on
from fedsi.tasks.task import Batch, Counts

EVALUATION_BATCH = 64
NOTHING: Mapping[str, Any] = MappingProxyType({})


def _untold(_client: int) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class _Part:
    """A vector ``end - start`` to add to sums."""

    start: NDArray[np.float32]
    end: NDArray[np.float32]
    spans: NDArray[np.int64]
    """Spans of the entries that may not be 0, as first and one past last, ``[spans, 2]``."""
    sums: Sums
    is_own: bool = False
    """Whether ``end`` is the memory of local training and nobody reads it after the addition."""

    def is_finite(self) -> bool:
        """Whether all entries of the vector are finite."""
        return bool(np.isfinite(self.start).all() and np.isfinite(self.end).all())


@dataclass
class BlockTrainer:
    """Trains blocks of a population's clients.

    Args:
        experiment: The configuration.
        population: The clients.
        at: Called with each client before it is trained or evaluated.
    """

    experiment: Experiment
    population: Population
    at: Callable[[int], None] = _untold

    def __post_init__(self) -> None:
        self.model = model_for(self.experiment, self.population)
        self.task = task_on(self.experiment, self.population)
        self.algorithm = algorithm_of(self.experiment)
        rounds = ClientRounds(self.experiment, self.population, self.model.layout.size)
        self._way: TrainingWay = (
            Vectorised(self.experiment, self.model, rounds, self.at)
            if self.experiment.client.step == "vectorised"
            else OneByOne(self.experiment, self.population, self.model, rounds, self.at)
        )
        self._unigram = torch.tensor(self.population.unigram_log_probabilities)
        self._joined = (
            JoinedEvaluation(self.task, self.model, self._unigram)
            if can_join_evaluations(self.task, self.model)
            else None
        )
        cohort = self.experiment.server.largest_cohort
        self._limit = np.float32(largest_contribution(cohort))
        shapes = list(self.model.layout.shapes.values())
        self._layer_ends = layer_ends(shapes, self.experiment.privacy.clipping)
        self._zeros = np.zeros(self.model.layout.size, np.float32)
        self._failures = FailureLog()
        self._personaliser: Personaliser | None = None

    def train(
        self,
        start: Tensor,
        clients: Sequence[int],
        round_number: int,
        sums: Sums,
        clip_norm: float = math.inf,
        sent: Vectors = NOTHING,
        returned: Mapping[str, Sums] = NOTHING,
        kept: Kept | None = None,
        *,
        attempt: int = 0,
    ) -> NDArray[np.float64]:
        """Train one block.

        Args:
            start: The global parameters, ``[parameters]``.
            clients: The block's members, in cohort order; canaries from ``canaries.FIRST`` on.
            round_number: The round.
            sums: Accumulated: the fixed-point sum of weighted updates, ``[parameters]``.
            clip_norm: Largest L2 norm of an update; infinite without clipping.
            sent: The server's vectors that the algorithm sends.
            returned: Accumulated: the sums of the vectors that the algorithm returns, by name.
            kept: The vectors that the clients keep; None if they keep none.
            attempt: Earlier attempts of the same round, which draw other faults.

        Returns:
            A row for each client in the order of ``TRAINING_COLUMNS``.
        """
        request = RoundRequest(start, clients, round_number, clip_norm, sent, kept, attempt)
        rows = np.zeros((len(clients), len(TRAINING_COLUMNS)))
        for one in self._way.train(request, sums):
            if isinstance(one, Failed):
                self._failures.add(clients[one.place], one.error)
                rows[one.place, 0] = one.outcome
            else:
                rows[one.place] = self._take(request, one, (sums, returned))
        self._failures.tell(f"failed in round {round_number}", len(clients))
        return rows

    def _take(
        self, request: RoundRequest, one: Finished, into: tuple[Sums, Mapping[str, Sums]]
    ) -> tuple[float, ...]:
        """Add a client's contribution unless that was done, and return its row."""
        result, contribution, kept = one.result, one.contribution, request.kept
        weight = self._weight(result)
        added = one.added or self._add_contribution(request, contribution, weight, into)
        accepted = added.outcome == Outcome.AGGREGATED
        if accepted and kept and contribution.kept:
            client = request.clients[one.place]
            kept.states.write(client, request.round_number, dict(contribution.kept))
        return (
            added.outcome,
            weight if accepted else 0.0,
            result.examples,
            result.tokens,
            result.loss,
            added.norm,
            added.clipped,
            result.steps,
            result.clipped_steps,
        )

    def evaluate(self, parameters: Tensor, clients: Sequence[int]) -> NDArray[np.float64]:
        """Evaluate clients on all of their examples.

        Args:
            parameters: The global parameters, ``[parameters]``.
            clients: Indices in the population.

        Returns:
            A row for each client in the order of ``Task.columns``; all NaN for a client that
            failed.
        """
        if self._joined is not None:
            return self._evaluate_joined(self._joined, parameters, clients)
        views = self.model.layout.views(parameters)

        def counts(client: int) -> Counts:
            return evaluate_client(
                self.task, self.model, views, self._batches(client), self._unigram
            )

        return self._rows(clients, len(self.task.columns), counts)

    def _batches(self, client: int) -> Iterator[Batch]:
        """Yield all examples of a client."""
        drawn = evaluation_batches(client_blocks(self.population, client), EVALUATION_BATCH)
        return map(self.task.batch, drawn)

    def _evaluate_joined(
        self, joined: JoinedEvaluation, parameters: Tensor, clients: Sequence[int]
    ) -> NDArray[np.float64]:
        """Evaluate clients in joined batches; one whose examples cannot be read fails alone."""
        rows = np.zeros((len(clients), len(self.task.columns)))
        failed: list[int] = []

        def batches() -> Iterator[tuple[int, Batch]]:
            for place, client in enumerate(clients):
                self.at(client)
                try:
                    yield from ((place, batch) for batch in self._batches(client))
                except DamagedError:
                    raise  # not the client's fault: results from a damaged file would be wrong
                except (Exception, SystemExit) as error:
                    self._failures.add(client, error)
                    failed.append(place)

        joined.begin(parameters)
        for place, counts in joined.counts(batches()):
            rows[place] += counts
        rows[failed] = np.nan
        self._failures.tell("could not be evaluated", len(clients))
        return rows

    def personalise(self, parameters: Tensor, clients: Sequence[int]) -> NDArray[np.float64]:
        """Fine-tune the global parameters on clients one by one, and evaluate both.

        Args:
            parameters: The global parameters, ``[parameters]``.
            clients: Indices in the population.

        Returns:
            A row for each client, ``[2 * columns of the task]`` as ``Personaliser.scores`` returns;
            all NaN for a client that failed.
        """
        if self._personaliser is None:
            parts = self.experiment, self.model, self.task, self._unigram, EVALUATION_BATCH
            self._personaliser = Personaliser(*parts)
        personaliser = self._personaliser
        personaliser.begin(parameters)

        def counts(client: int) -> Counts:
            return personaliser.scores(self.population.examples(client), client)

        return self._rows(clients, 2 * len(self.task.columns), counts)

    def _rows(
        self, clients: Sequence[int], columns: int, counts: Callable[[int], Counts]
    ) -> NDArray[np.float64]:
        """Return each client's counts, ``[clients, columns]``; NaN for those that fail."""
        rows = np.zeros((len(clients), columns))
        for row, client in zip(rows, clients, strict=True):
            self.at(client)
            try:
                row[:] = counts(client)
            except DamagedError:
                raise  # not the client's fault: results from a damaged file would be wrong
            except (Exception, SystemExit) as error:
                self._failures.add(client, error)
                row[:] = np.nan
        self._failures.tell("could not be evaluated", len(clients))
        return rows

    def _add_contribution(
        self,
        request: RoundRequest,
        contribution: Contribution,
        weight: float,
        into: tuple[Sums, Mapping[str, Sums]],
    ) -> Added:
        """Add the latest client's contribution, within the norm bound if there is one."""
        settings, start, clip_norm = self.experiment.server, request.start, request.clip_norm
        if settings.norm_bound is None:
            return self._add(self._parts(start, contribution, *into), weight, clip_norm)
        trained = self._way.parameters.numpy()
        bounded = within_bound(settings, start.numpy(), trained, contribution)
        told = bounded.norm if math.isfinite(bounded.norm) else 0.0
        if bounded.refused:
            return Added(Outcome.ABOVE_BOUND, told, clipped=False)
        outcome = self._add(
            self._parts(start, bounded.contribution, *into), weight, clip_norm
        ).outcome
        return Added(outcome, told, clipped=outcome == Outcome.AGGREGATED and bounded.clipped)

    def _parts(
        self,
        start: Tensor,
        contribution: Contribution,
        sums: Sums,
        returned: Mapping[str, Sums],
    ) -> list[_Part]:
        """Return the vectors that the latest client adds to sums, its update first."""
        everything = np.array([[0, len(start)]])
        update = (
            _Part(
                start.numpy(),
                self._way.parameters.numpy(),
                self._way.spans,
                sums,
                is_own=not contribution.kept,  # a kept vector may be the parameters
            )
            if contribution.update is None
            else _Part(self._zeros, contribution.update, everything, sums)
        )
        others = (
            _Part(self._zeros, contribution.returned[name], everything, its_sums)
            for name, its_sums in returned.items()
        )
        return [update, *others]

    def _add(self, parts: Sequence[_Part], weight: float, clip_norm: float) -> Added:
        """Add a contribution, clipped or weighted, if all of it is finite."""
        if math.isinf(clip_norm):
            return Added(self._add_whole(parts, np.float32(weight)), 0.0, clipped=False)
        (update,) = parts
        add = move_clipped if update.is_own else add_clipped
        norm, clipped = add(
            update.start, update.end, update.spans, self._layer_ends, clip_norm, update.sums
        )
        if not math.isfinite(norm):
            return Added(Outcome.NOT_FINITE, 0.0, clipped=clipped)
        if update.is_own:
            self._way.set_back()
        return Added(Outcome.AGGREGATED, norm, clipped=clipped)

    def _add_whole(self, parts: Sequence[_Part], weight: np.float32) -> Outcome:
        """Add weighted parts, all or none; integers can be subtracted again exactly."""
        for k, part in enumerate(parts):
            if not add_update(part.start, part.end, part.spans, weight, self._limit, part.sums):
                for one in parts[:k]:
                    add_update(one.start, one.end, one.spans, -weight, self._limit, one.sums)
                return Outcome.OUT_OF_RANGE if part.is_finite() else Outcome.NOT_FINITE
        return Outcome.AGGREGATED

    def _weight(self, result: LocalResult) -> float:
        return float(result.examples) if self.experiment.server.averaging == "examples" else 1.0
