"""Aggregation of the nodes' replies: exact sums of updates, and rows in cohort order."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.client_states import Rounds
from fedsi.experiment import Experiment
from fedsi.learning.algorithms.algorithm import UPDATE, Updates, Vector, Vectors
from fedsi.learning.algorithms.table import algorithm_of
from fedsi.messages import (
    TRAINING_COLUMNS,
    Evaluate,
    Evaluated,
    Outcome,
    Train,
    Trained,
    evaluated,
    split,
)
from fedsi.sums.fixed_point import weighted_mean
from fedsi.sums.secure.masked_round import MaskedRound
from fedsi.sums.totals import COUNTS, Totals, totals_of
from fedsi.tasks.table import task_of
from server.blocks import Job, answers, dealt
from server.nodes import Hosting, NodesError
from server.replies import check_evaluated, check_trained

Ids = NDArray[np.int64]
Rows = NDArray[np.float64]
Sums = NDArray[np.int64]

_OUTCOME = TRAINING_COLUMNS.index("outcome")


def _nothing() -> Ids:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Extras:
    """The vectors of an algorithm besides the parameters."""

    vectors: Vectors = field(default_factory=dict)
    """The server's vectors, in the order of ``Algorithm.sent``."""
    states: str = ""
    """Folder of the vectors that the clients keep; empty if they keep none."""
    state_rounds: Rounds | None = None
    """The round in which each training client's vectors were written; None if they keep none."""
    masked: MaskedRound | None = None
    """The masked round; None without secure aggregation."""
    attempt: int = 0
    """Earlier attempts of the same round, which were dropped."""

    @property
    def mask_key(self) -> Ids:
        """The key of the masks as words; empty without secure aggregation."""
        return np.frombuffer(self.masked.key, np.int64) if self.masked else _nothing()

    @property
    def participants(self) -> Ids:
        """The clients of the masked round; empty without secure aggregation."""
        return self.masked.participants if self.masked else _nothing()

    def rounds_of(self, clients: Ids) -> Ids:
        """Return the rounds of clients' vectors, ``[clients]``; 0 for canaries, which keep none."""
        if self.state_rounds is None:
            return np.zeros(0, np.int64)
        known = clients < len(self.state_rounds)
        return np.where(known, self.state_rounds[np.where(known, clients, 0)], 0).astype(np.int64)


@dataclass(frozen=True)
class Aggregate:
    """The result of training a cohort."""

    sums: Sums
    """Fixed-point sum of the accepted updates, weighted or clipped: ``[parameters]``."""
    rows: Rows
    """One row per client, in cohort order: ``[cohort, TRAINING_COLUMNS]``."""
    lost: int = 0
    """Clients without a reply, because their node failed, or failed at them."""
    returned: Mapping[str, Sums] = field(default_factory=dict)
    """Fixed-point sums of the vectors that the algorithm returns, weighted: ``[parameters]``."""
    counts: Sums = field(default_factory=_nothing)
    """With secure aggregation, where rows have nothing but outcomes: the sums of the rest."""
    center: Vector | None = None
    """What the algorithm makes of the accepted updates instead of their mean, if it does."""
    updates: Updates | None = None
    """The accepted updates, if the server imitates their models and there is one."""
    totals: Totals | None = None
    """Those of ``counts``; None for those of the rows."""

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a column of the rows, ``[cohort]``."""
        return self.rows[:, TRAINING_COLUMNS.index(name)]

    def total(self) -> Totals:
        """Return the totals over the aggregated clients."""
        return totals_of(self.rows) if self.totals is None else self.totals

    def means(self) -> dict[str, NDArray[np.float32]]:
        """Return weighted means of the accepted updates and returned vectors, zeros without any."""
        weight = self.total().weight
        means = {
            name: weighted_mean(sums, weight) if weight else np.zeros(len(sums), np.float32)
            for name, sums in {UPDATE: self.sums, **self.returned}.items()
        }
        return means if self.center is None else {**means, UPDATE: self.center}


def train_cohort(
    grid: Grid,
    hosting: Hosting,
    experiment: Experiment,
    parameters: NDArray[np.float32],
    cohort: Ids,
    round_number: int,
    clip_norm: float = math.inf,
    extras: Extras = Extras(),
) -> Aggregate:
    """Train a cohort and sum its updates.

    The sums are integers and each client's row has a fixed place, so the result does not depend on
    the number of nodes or the order of their replies. Lost clients count as failed. With secure
    aggregation the sums are masked; ``server.secure_aggregation`` removes the masks.

    Args:
        grid: Flower's connection to the nodes.
        hosting: The connected nodes.
        experiment: The configuration.
        parameters: The global parameters, ``[parameters]``.
        cohort: The clients, ``[cohort]``.
        round_number: The round.
        clip_norm: Largest L2 norm of an update; infinite for no clipping.
        extras: What else the algorithm sends.

    Raises:
        NodesError: No node replied for its clients.
    """
    toml, size, algorithm = experiment.to_toml(), len(parameters), algorithm_of(experiment)
    rows = np.zeros((len(cohort), len(TRAINING_COLUMNS)))
    rows[:, _OUTCOME] = Outcome.NODE_FAILED  # until a node replies, or its failure is known

    def lost_as(places: Ids, outcome: Outcome) -> None:
        rows[places, _OUTCOME] = outcome

    sent = np.concatenate([np.zeros(0, np.float32), *extras.vectors.values()])
    job = Job(
        name=f"round {round_number}",
        clients=cohort,
        request=lambda clients: Train(
            toml,
            round_number,
            parameters,
            clients,
            clip_norm,
            sent,
            extras.states,
            extras.rounds_of(clients),
            extras.mask_key,
            extras.participants,
            extras.attempt,
        ),
        answer=Trained,
        check=lambda reply, clients: check_trained(reply, experiment, clients, size, clip_norm),
        timeout=experiment.server.round_timeout,
        lost=lost_as,
    )
    sums: Sums | None = None
    returned = np.zeros(len(algorithm.returned) * size, np.int64)
    counts = np.zeros(COUNTS if extras.masked else 0, np.int64)
    updates = np.zeros((len(cohort) if algorithm.aggregate else 0, size), np.float32)
    lost = len(cohort)
    for places, trained in answers(grid, dealt(grid, hosting, experiment, cohort), job):
        # The first sum is used directly; adding it to zeros would be one more pass over memory.
        sums = trained.sums if sums is None else sums + trained.sums
        returned += trained.returned
        counts += trained.counts
        rows[places] = trained.rows
        if algorithm.aggregate:
            updates[places] = trained.updates.reshape(-1, size)
        lost -= len(places)
    if sums is None and len(cohort):
        raise NodesError(f"no node could train in round {round_number}; see the log above")
    if sums is None:
        sums = np.zeros(size, np.int64)
    found = Aggregate(sums, rows, lost, split(algorithm.returned, returned), counts)
    return _with_center(experiment, found, updates) if algorithm.aggregate else found


def _with_center(experiment: Experiment, trained: Aggregate, updates: Updates) -> Aggregate:
    """Return the result of training with what replaces the mean of the updates.

    Args:
        experiment: The configuration.
        trained: The result without it.
        updates: A row for each client of the cohort, ``[cohort, parameters]``.
    """
    algorithm = algorithm_of(experiment)
    accepted = updates[trained.column("outcome") == Outcome.AGGREGATED]
    assert algorithm.aggregate is not None, "the nodes returned updates"  # noqa: S101
    if not len(accepted):
        return replace(trained, sums=np.zeros(updates.shape[1], np.int64))
    return replace(
        trained,
        sums=np.zeros(updates.shape[1], np.int64),
        center=algorithm.aggregate(experiment.algorithm, accepted),
        updates=accepted if algorithm.imitated else None,
    )


def count_clients_on_nodes(
    grid: Grid,
    hosting: Hosting,
    experiment: Experiment,
    parameters: NDArray[np.float32],
    clients: Ids,
    name: str,
    most_examples: int,
) -> Rows:
    """Return a row for each of some clients, NaN for those that could not be evaluated.

    Args are those of ``evaluate_clients``, and the evaluation's name in messages.

    Raises:
        NodesError: No node answered.
    """
    toml = experiment.to_toml()
    job = Job(
        name=name,
        clients=clients,
        request=lambda clients: Evaluate(toml, parameters, clients),
        answer=Evaluated,
        check=lambda reply, clients: check_evaluated(reply, experiment, clients, most_examples),
        timeout=experiment.server.round_timeout,
    )
    rows = np.full((len(clients), len(task_of(experiment).columns)), np.nan)
    answered = False
    for places, reply in answers(grid, dealt(grid, hosting, experiment, clients), job):
        rows[places] = reply.rows
        answered = True
    if not answered:
        raise NodesError("no node could evaluate the held-out clients; see the log above")
    return rows


def evaluate_clients(
    grid: Grid,
    hosting: Hosting,
    experiment: Experiment,
    parameters: NDArray[np.float32],
    clients: Ids,
    round_number: int,
    most_examples: int,
) -> Rows:
    """Evaluate the global parameters of a round on some clients.

    Args:
        grid: Flower's grid.
        hosting: The nodes that share the work, and the clients that each hosts.
        experiment: The configuration.
        parameters: The global parameters, ``[parameters]``.
        clients: Indices of held-out clients.
        round_number: The round.
        most_examples: Held-out examples of the population; a node that counts more is not believed.

    Returns:
        A row for each client that could be evaluated, in the given order,
        ``[clients, columns of the task]``.

    Raises:
        NodesError: No client could be evaluated.
    """
    name = f"the evaluation of round {round_number}"
    rows = count_clients_on_nodes(
        grid, hosting, experiment, parameters, clients, name, most_examples
    )
    kept = rows[evaluated(rows)]
    if not len(kept):
        raise NodesError(
            f"none of the {len(clients)} held-out clients could be evaluated after round "
            f"{round_number}; see the log above"
        )
    return kept
