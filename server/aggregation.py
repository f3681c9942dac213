"""A round's cohort: cut into a block for each node, its updates added up exactly."""

import heapq
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.experiment import Experiment
from fedsi.messages import Evaluate, Evaluated, Train, Trained
from fedsi.training.block import TRAINING_COLUMNS, Outcome
from fedsi.training.fixed_point import weighted_mean
from fedsi.training.metrics import COLUMNS
from server.nodes import NodesError, ask, estimate_work

log = logging.getLogger(__name__)

Ids = NDArray[np.int64]
Rows = NDArray[np.float64]

_OUTCOME = TRAINING_COLUMNS.index("outcome")


@dataclass(frozen=True)
class Aggregate:
    """What a cohort's training came to."""

    sums: NDArray[np.int64]
    """Fixed-point sum of the accepted updates, weighted or clipped: ``[parameters]``."""
    rows: Rows
    """Per client, in cohort order: ``[cohort, TRAINING_COLUMNS]``."""

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a column of the rows, ``[cohort]``."""
        return self.rows[:, TRAINING_COLUMNS.index(name)]

    def mean(self) -> NDArray[np.float32]:
        """Return the weighted mean of the accepted updates, zeros if there was none."""
        weight = self.column("weight").sum()
        if not weight:
            return np.zeros(len(self.sums), np.float32)
        return weighted_mean(self.sums, weight)


def train_cohort(
    grid: Grid,
    nodes: Sequence[int],
    experiment: Experiment,
    parameters: NDArray[np.float32],
    cohort: Ids,
    round_number: int,
    clip_norm: float = math.inf,
) -> Aggregate:
    """Train a cohort and add up its updates.

    The sums are integers and each client's row has its place, so neither the number of nodes nor
    the order of their answers changes a bit of the result. Clients of a node that failed count as
    failed.

    Raises:
        NodesError: No node answered for its clients.
    """
    toml = experiment.to_toml()
    blocks = _blocks(grid, nodes, toml, cohort)
    requests = {
        node: Train(
            experiment=toml,
            round_number=round_number,
            parameters=parameters,
            clients=cohort[places],
            clip_norm=clip_norm,
        )
        for node, places in blocks.items()
    }
    sums = None
    rows = np.zeros((len(cohort), len(TRAINING_COLUMNS)))
    rows[:, _OUTCOME] = Outcome.FAILED
    for node, trained in ask(grid, requests, Trained, group=str(round_number)):
        places = blocks[node]
        if not _fits(trained, len(places), len(parameters)):
            log.warning("node %d answered with sums or rows of a wrong shape", node)
            continue
        # The first sum is taken as it is: zeros to add to would be one more pass over memory.
        sums = trained.sums if sums is None else sums + trained.sums
        rows[places] = trained.rows
    if sums is None and requests:
        raise NodesError(f"no node could train in round {round_number}; see the log above")
    if sums is None:
        sums = np.zeros(len(parameters), np.int64)
    return Aggregate(sums=sums, rows=rows)


def evaluate_clients(
    grid: Grid,
    nodes: Sequence[int],
    experiment: Experiment,
    parameters: NDArray[np.float32],
    clients: Ids,
) -> Rows:
    """Evaluate the global parameters on some clients.

    Returns:
        Per client of the nodes that answered, in the order given: ``[clients, metrics.COLUMNS]``.

    Raises:
        NodesError: None of them did.
    """
    toml = experiment.to_toml()
    blocks = _blocks(grid, nodes, toml, clients)
    requests = {
        node: Evaluate(experiment=toml, parameters=parameters, clients=clients[places])
        for node, places in blocks.items()
    }
    rows = np.zeros((len(clients), len(COLUMNS)))
    answered = np.zeros(len(clients), bool)
    for node, evaluated in ask(grid, requests, Evaluated):
        places = blocks[node]
        if evaluated.rows.shape != (len(places), len(COLUMNS)):
            log.warning("node %d answered with rows of a wrong shape", node)
            continue
        rows[places], answered[places] = evaluated.rows, True
    if not answered.any():
        raise NodesError("no node could evaluate the held-out clients; see the log above")
    return rows[answered]


def _blocks(grid: Grid, nodes: Sequence[int], experiment: str, clients: Ids) -> dict[int, Ids]:
    """Deal clients to nodes as places in the list; nodes without a client are left out."""
    if len(nodes) == 1:
        return {nodes[0]: np.arange(len(clients))} if len(clients) else {}
    work = estimate_work(grid, nodes, experiment, clients)
    blocks = zip(nodes, balanced(work, len(nodes)), strict=True)
    return {node: places for node, places in blocks if len(places)}


def balanced(work: NDArray[np.int64], blocks: int) -> list[Ids]:
    """Deal places to blocks, the largest first, each to the block that has the least work yet.

    Graham's rule (SIAM J. Appl. Math. 1969): the busiest block has at most 4/3 of the least
    possible.

    Args:
        work: Of each place, ``[places]``.
        blocks: How many to deal to.

    Returns:
        The places of each block, ascending.
    """
    loads = [(0, block) for block in range(blocks)]
    block_of = np.empty(len(work), dtype=np.int64)
    for place in np.argsort(-work, kind="stable"):
        load, block = heapq.heappop(loads)
        block_of[place] = block
        heapq.heappush(loads, (load + int(work[place]), block))
    return [np.flatnonzero(block_of == block) for block in range(blocks)]


def _fits(trained: Trained, clients: int, parameters: int) -> bool:
    return len(trained.sums) == parameters and trained.rows.shape == (
        clients,
        len(TRAINING_COLUMNS),
    )
