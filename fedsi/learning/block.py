"""Training of a block: the members of a cohort that one node trains and sums, one by one.

Each update is added exactly, in fixed point, so the result has the same bits for any order and any
number of nodes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.client_states import ClientStates
from fedsi.data.batches import evaluation_batches, poisson_batches, training_batches
from fedsi.data.population import ClientExamples, Population, client_blocks
from fedsi.errors import DamagedError
from fedsi.experiment import Experiment
from fedsi.learning.algorithms.algorithm import Broadcast, Contribution, LocalRun, Pull, Vectors
from fedsi.learning.algorithms.table import algorithm_of
from fedsi.learning.client import LocalResult, LocalTrainer, evaluate_client
from fedsi.learning.dp_sgd import ExamplePrivateTrainer
from fedsi.learning.failures import FailureLog
from fedsi.learning.faults import fault_of, spoiled, suffer_before_training
from fedsi.learning.norm_bound import within_bound
from fedsi.learning.personal import Personaliser
from fedsi.limits import largest_contribution
from fedsi.messages import TRAINING_COLUMNS, Outcome
from fedsi.models.build import build_model
from fedsi.privacy import canaries
from fedsi.privacy.noise_streams import noise_key, normal_for_examples
from fedsi.sums.clipping import add_clipped, layer_ends
from fedsi.sums.updates import add_update
from fedsi.tasks.table import task_of
from fedsi.tasks.task import Counts

EVALUATION_BATCH = 64
NOTHING: Mapping[str, Any] = MappingProxyType({})

Sums = NDArray[np.int64]
"""Sums in fixed point, ``[parameters]``."""


def _untold(_client: int) -> None:
    """Do nothing."""


class WrongShapeError(ValueError):
    """A contribution with a vector of another size than the model's."""


@dataclass(frozen=True)
class _Part:
    """A vector ``end - start`` to add to sums."""

    start: NDArray[np.float32]
    end: NDArray[np.float32]
    spans: NDArray[np.int64]
    """Spans of the entries that may not be 0, as first and one past last, ``[spans, 2]``."""
    sums: Sums

    def is_finite(self) -> bool:
        """Whether all entries of the vector are finite."""
        return bool(np.isfinite(self.start).all() and np.isfinite(self.end).all())


@dataclass(frozen=True)
class Kept:
    """The vectors that the clients of a block keep."""

    states: ClientStates
    rounds: Mapping[int, int]
    """The round in which each client's state was written, 0 for none."""


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
        self.model = build_model(self.experiment, self.population.description.vocabulary_size)
        self.task = task_of(self.experiment)
        self.algorithm = algorithm_of(self.experiment)
        self._injects_faults = bool(self.experiment.faults.shares)
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
        self._zeros = np.zeros(self.model.layout.size, np.float32)
        self._noise_key = noise_key(self.experiment, self.population.description.content_digest)
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
        rows = np.zeros((len(clients), len(TRAINING_COLUMNS)))
        schedule = self.experiment.client.learning_rate_schedule
        rounds = self.experiment.server.rounds
        self._trainer.begin(start, schedule.factor(round_number, rounds))
        given = Broadcast(start.numpy(), sent)
        for row, client in zip(rows, clients, strict=True):
            self.at(client)
            try:
                result, contribution = (
                    self._play_canary(start, client - canaries.FIRST, clip_norm)
                    if client >= canaries.FIRST
                    else self._train_client(
                        client, round_number, attempt, self._with_kept(given, kept, client)
                    )
                )
            except DamagedError:
                raise  # not the client's fault: results from a damaged file would be wrong
            except (Exception, SystemExit) as error:
                self._failures.add(client, error)
                misshapen = isinstance(error, WrongShapeError)
                row[0] = Outcome.WRONG_SHAPE if misshapen else Outcome.RAISED
                continue
            weight = self._weight(result)
            outcome, norm, clipped = self._add_contribution(
                start, contribution, weight, clip_norm, (sums, returned)
            )
            accepted = outcome == Outcome.AGGREGATED
            if accepted and kept and contribution.kept:
                kept.states.write(client, round_number, dict(contribution.kept))
            row[:] = (
                outcome,
                weight if accepted else 0.0,
                result.examples,
                result.tokens,
                result.loss,
                norm,
                clipped,
                result.steps,
                result.clipped_steps,
            )
        self._failures.tell(f"failed in round {round_number}", len(clients))
        return rows

    def evaluate(self, parameters: Tensor, clients: Sequence[int]) -> NDArray[np.float64]:
        """Evaluate clients one by one, on all of their examples.

        Args:
            parameters: The global parameters, ``[parameters]``.
            clients: Indices in the population.

        Returns:
            A row for each client in the order of ``Task.columns``; all NaN for a client that
            failed.
        """
        views = self.model.layout.views(parameters)

        def counts(client: int) -> Counts:
            drawn = evaluation_batches(client_blocks(self.population, client), EVALUATION_BATCH)
            return evaluate_client(
                self.task, self.model, views, map(self.task.batch, drawn), self._unigram
            )

        return self._rows(clients, len(self.task.columns), counts)

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

    def _with_kept(self, given: Broadcast, kept: Kept | None, client: int) -> Broadcast:
        """Return a client's broadcast with the vectors that it keeps."""
        if kept is None:
            return given
        names, size = self.algorithm.kept, self.model.layout.size
        return replace(given, kept=kept.states.read(client, kept.rounds[client], names, size))

    def _train_client(
        self, client: int, round_number: int, attempt: int, given: Broadcast
    ) -> tuple[LocalResult, Contribution]:
        """Train a client and return its contribution."""
        settings = self.experiment.algorithm
        fault = ""
        if self._injects_faults:
            fault = fault_of(self.experiment, round_number, client, attempt)
            suffer_before_training(fault, self.experiment.server.round_timeout)
        pull = self.algorithm.pull(settings, given)
        result = self._run_steps(client, round_number, pull)
        trained, rate = self._trainer.parameters.numpy(), self._trainer.learning_rate
        local = LocalRun(trained, result.steps, rate)
        contribution = self.algorithm.finish(settings, given, local)
        if fault:
            whole = trained - given.start
            update = whole if contribution.update is None else contribution.update
            contribution = spoiled(fault, contribution, update)
        self._check_shapes(contribution)
        return result, contribution

    def _check_shapes(self, contribution: Contribution) -> None:
        """Refuse vectors of another size, which the compiled sums would read beyond their end.

        Raises:
            WrongShapeError: A vector has another size.
        """
        right = (self.model.layout.size,)
        vectors = {"update": contribution.update, **contribution.returned}
        for name, vector in vectors.items():
            if vector is not None and vector.shape != right:
                raise WrongShapeError(f"its {name} has the shape {vector.shape} instead of {right}")

    def _run_steps(self, client: int, round_number: int, pull: Pull) -> LocalResult:
        experiment, examples = (
            self.experiment,
            ClientExamples(self.population, client, round_number),
        )
        key = {"seed": experiment.seed, "round_number": round_number, "client": client}
        if isinstance(self._trainer, ExamplePrivateTrainer):
            nominal = experiment.nominal_examples
            noise = partial(normal_for_examples, self._noise_key, round_number, client)
            batches = poisson_batches(examples, experiment.client, nominal, **key)
            return self._trainer.train(map(self.task.batch, batches), noise, pull)
        cap = experiment.data.max_examples_per_client
        batches = training_batches(examples, experiment.client, cap, **key)
        return self._trainer.train(map(self.task.batch, batches), pull)

    def _play_canary(
        self, start: Tensor, canary: int, clip_norm: float
    ) -> tuple[LocalResult, Contribution]:
        """Make the update of a canary, which has no examples, instead of training it."""
        direction = canaries.direction(self.experiment.seed, canary, len(start))
        update = torch.from_numpy(direction).mul_(canaries.RAW_NORM * clip_norm)
        torch.add(start, update, out=self._trainer.parameters)
        self._trainer.spans = np.array([[0, len(start)]])
        return LocalResult(loss=0.0, tokens=0, examples=0, steps=0), Contribution()

    def _add_contribution(
        self,
        start: Tensor,
        contribution: Contribution,
        weight: float,
        clip_norm: float,
        into: tuple[Sums, Mapping[str, Sums]],
    ) -> tuple[Outcome, float, bool]:
        """Add the latest client's contribution, within the norm bound if there is one.

        Returns:
            The result of ``_add``.
        """
        settings = self.experiment.server
        if settings.norm_bound is None:
            return self._add(self._parts(start, contribution, *into), weight, clip_norm)
        trained = self._trainer.parameters.numpy()
        bounded = within_bound(settings, start.numpy(), trained, contribution)
        parts = self._parts(start, bounded.contribution, *into)
        outcome = Outcome.ABOVE_BOUND if bounded.refused else self._add(parts, weight, clip_norm)[0]
        told = bounded.norm if math.isfinite(bounded.norm) else 0.0
        return outcome, told, outcome == Outcome.AGGREGATED and bounded.clipped

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
            _Part(start.numpy(), self._trainer.parameters.numpy(), self._trainer.spans, sums)
            if contribution.update is None
            else _Part(self._zeros, contribution.update, everything, sums)
        )
        others = (
            _Part(self._zeros, contribution.returned[name], everything, its_sums)
            for name, its_sums in returned.items()
        )
        return [update, *others]

    def _add(
        self, parts: Sequence[_Part], weight: float, clip_norm: float
    ) -> tuple[Outcome, float, bool]:
        """Add a contribution, clipped or weighted, if all of it is finite.

        Returns:
            Whether it was added or why not, the norm of the update before clipping, and whether it
            was clipped.
        """
        if math.isinf(clip_norm):
            return self._add_whole(parts, np.float32(weight)), 0.0, False
        (update,) = parts
        ends = self._layer_ends
        norm, clipped = add_clipped(update.start, update.end, ends, clip_norm, update.sums)
        if not math.isfinite(norm):
            return Outcome.NOT_FINITE, 0.0, clipped
        return Outcome.AGGREGATED, norm, clipped

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
