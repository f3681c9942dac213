"""A round's cohort: cut into blocks, spread over nodes, its updates added up exactly."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.experiment import Experiment
from fedsi.messages import Evaluate, Evaluated, Train, Trained, block_starts
from fedsi.training.block import TRAINING_COLUMNS, Outcome
from fedsi.training.fixed_point import decode
from fedsi.training.metrics import COLUMNS
from server.nodes import ask

Ids = NDArray[np.int64]
Rows = NDArray[np.float64]

_OUTCOME, _WEIGHT = (TRAINING_COLUMNS.index(name) for name in ("outcome", "weight"))
EVALUATION_BLOCK = 16
"""Held-out clients in a unit of work; no effect on results."""


@dataclass(frozen=True)
class Aggregate:
    """What a cohort's training came to."""

    update: NDArray[np.float32]
    """The weighted mean of the accepted updates, zeros if there was none: ``[parameters]``."""
    rows: Rows
    """Per client, in cohort order: ``[cohort, TRAINING_COLUMNS]``."""


def train_cohort(
    grid: Grid,
    nodes: Sequence[int],
    experiment: Experiment,
    parameters: NDArray[np.float32],
    cohort: Ids,
    round_number: int,
) -> Aggregate:
    """Train a cohort and average its updates.

    The sums are integers and each client's row has its place, so neither the number of nodes nor
    the order of their answers changes a bit of the result. Clients of a node that failed count as
    failed.
    """
    toml = experiment.to_toml()
    assigned = dict(_spread(nodes, len(cohort), experiment.server.block_size))
    requests = {
        node: Train(
            experiment=toml,
            round_number=round_number,
            parameters=parameters,
            clients=cohort[np.concatenate(blocks)],
            block_starts=block_starts([len(block) for block in blocks]),
        )
        for node, blocks in assigned.items()
    }
    sums = np.zeros(len(parameters), dtype=np.int64)
    rows = np.zeros((len(cohort), len(TRAINING_COLUMNS)))
    rows[:, _OUTCOME] = Outcome.FAILED
    for node, trained in ask(grid, requests, Trained, group=str(round_number)):
        places = np.concatenate(assigned[node])
        if _fits(trained, len(places), len(parameters)):
            sums += trained.sums
            rows[places] = trained.rows
    weight = rows[:, _WEIGHT].sum()
    mean = decode(torch.from_numpy(sums)).numpy() / weight if weight else np.zeros(len(sums))
    return Aggregate(update=mean.astype(np.float32), rows=rows)


def evaluate_clients(
    grid: Grid,
    nodes: Sequence[int],
    experiment: Experiment,
    parameters: NDArray[np.float32],
    clients: Ids,
) -> Rows:
    """Evaluate the global parameters on some clients.

    Returns:
        Per client, in the order given: ``[clients, metrics.COLUMNS]``; zeros for those that failed.
    """
    toml = experiment.to_toml()
    assigned = {
        node: np.concatenate(blocks)
        for node, blocks in _spread(nodes, len(clients), EVALUATION_BLOCK)
    }
    requests: Mapping[int, Evaluate] = {
        node: Evaluate(experiment=toml, parameters=parameters, clients=clients[places])
        for node, places in assigned.items()
    }
    rows = np.zeros((len(clients), len(COLUMNS)))
    for node, evaluated in ask(grid, requests, Evaluated):
        if evaluated.rows.shape == rows[assigned[node]].shape:
            rows[assigned[node]] = evaluated.rows
    return rows


def _spread(nodes: Sequence[int], clients: int, block_size: int) -> Iterator[tuple[int, list[Ids]]]:
    """Yield each node's blocks as places in the cohort; nodes without a block are left out.

    Blocks are dealt in turn: clients are drawn at random, so blocks are alike in expectation.
    """
    places = np.arange(clients)
    blocks = [places[start : start + block_size] for start in range(0, clients, block_size)]
    for turn, node in enumerate(nodes):
        if mine := blocks[turn :: len(nodes)]:
            yield node, mine


def _fits(trained: Trained, clients: int, parameters: int) -> bool:
    return len(trained.sums) == parameters and trained.rows.shape == (
        clients,
        len(TRAINING_COLUMNS),
    )
