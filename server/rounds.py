"""The round loop: sample a cohort, train it, aggregate, step the server optimizer, evaluate."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.data.population import Description
from fedsi.experiment import Experiment
from fedsi.models.build import build_model
from fedsi.models.initialisation import initial_parameters
from fedsi.training.block import TRAINING_COLUMNS, Outcome
from fedsi.training.metrics import Metrics, summarise
from server import optimizers
from server.aggregation import Aggregate, evaluate_clients, train_cohort
from server.availability import Trace
from server.cohorts import Draw, draw_cohort
from server.nodes import NodesError

DIVERGED_LOSS = 1.5
"""A run whose loss exceeds this multiple of the uniform model's, log(vocabulary), has diverged."""


@dataclass(frozen=True)
class State:
    """Everything that a round needs from the rounds before it. Replaced whole, never changed."""

    round_number: int
    parameters: NDArray[np.float32]
    optimizer: optimizers.State


@dataclass(frozen=True)
class RoundRecord:
    """What is known of a round when it ends; one row of ``rounds.csv``."""

    round: int
    train_loss: float
    """Nats per target token of the aggregated clients, before the local step that used it; NaN
    without any."""
    clients: int
    """Clients whose update was aggregated."""
    rejected: int
    """Clients whose update was not finite or out of range."""
    failed: int
    """Clients that could not be trained, or whose node failed."""
    dropped: int
    """Clients that were drawn but did not report in time; they were not trained."""
    tokens: int
    train_seconds: float
    evaluation_seconds: float = 0.0
    heldout: Metrics | None = None
    """Of the held-out clients; None in rounds without evaluation."""


def initial_state(experiment: Experiment, description: Description) -> State:
    """Return the state before the first round, a pure function of the seed."""
    model = build_model(experiment, description.vocabulary_size)
    parameters = initial_parameters(model, experiment.seed).numpy()
    return State(0, parameters, optimizers.initial_state(experiment.server, len(parameters)))


def run_rounds(
    grid: Grid,
    nodes: Sequence[int],
    experiment: Experiment,
    description: Description,
    trace: Trace | None,
    state: State,
) -> Iterator[tuple[State, RoundRecord]]:
    """Run the rounds that are left, until the last one or until the run diverges.

    A round whose cohort is empty steps the server optimizer with an update of zeros.

    Yields:
        After each round the new state and the round's record.

    Raises:
        NodesError: No client of a cohort could be trained at all.
    """
    server = experiment.server
    heldout = description.training_clients + np.arange(
        min(description.heldout_clients, server.evaluation_clients)
    )
    for number in range(state.round_number + 1, server.rounds + 1):
        started = time.perf_counter()
        cohort = draw_cohort(experiment, description.training_clients, trace, number)
        trained = train_cohort(grid, nodes, experiment, state.parameters, cohort.reporting, number)
        state = _next_state(experiment, state, trained)
        record = _record(number, cohort, trained, time.perf_counter() - started)
        last = number == server.rounds or has_diverged(record, description)
        if last or number % server.evaluate_every == 0:
            record = _evaluated(record, grid, nodes, experiment, state, heldout)
        yield state, record
        if has_diverged(record, description):
            return


def has_diverged(record: RoundRecord, description: Description) -> bool:
    """Whether a round left nothing to average, or a held-out loss beyond ``DIVERGED_LOSS``.

    A large loss of the cohort alone does not count: one client's steps may blow up, and the
    average still be good. Neither does an empty cohort: there was nothing to go wrong.
    """
    limit = DIVERGED_LOSS * math.log(description.vocabulary_size)
    if record.heldout is not None and not record.heldout.loss <= limit:
        return True
    empty = record.clients + record.rejected + record.failed == 0
    return not empty and not math.isfinite(record.train_loss)


def _next_state(experiment: Experiment, state: State, trained: Aggregate) -> State:
    parameters = state.parameters.copy()
    moments = {name: moment.copy() for name, moment in state.optimizer.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        optimizers.step(experiment.server, moments, parameters, trained.update)
    return State(state.round_number + 1, parameters, moments)


def _record(number: int, cohort: Draw, trained: Aggregate, seconds: float) -> RoundRecord:
    column = {name: trained.rows[:, place] for place, name in enumerate(TRAINING_COLUMNS)}
    accepted = column["outcome"] == Outcome.AGGREGATED
    rejected = int((column["outcome"] == Outcome.REJECTED).sum())
    failed = int((column["outcome"] == Outcome.FAILED).sum())
    if failed == len(trained.rows) > 0:
        raise NodesError(f"no client of round {number} could be trained; see the log above")
    tokens = column["tokens"][accepted].sum()
    return RoundRecord(
        round=number,
        train_loss=float(column["loss"][accepted].sum() / tokens) if tokens else math.nan,
        clients=int(accepted.sum()),
        rejected=rejected,
        failed=failed,
        dropped=cohort.drawn - len(cohort.reporting),
        tokens=int(tokens),
        train_seconds=seconds,
    )


def _evaluated(
    record: RoundRecord,
    grid: Grid,
    nodes: Sequence[int],
    experiment: Experiment,
    state: State,
    clients: NDArray[np.int64],
) -> RoundRecord:
    started = time.perf_counter()
    rows = evaluate_clients(grid, nodes, experiment, state.parameters, clients)
    metrics = summarise(rows)
    return replace(record, heldout=metrics, evaluation_seconds=time.perf_counter() - started)
