"""The pool of clients that a node hosts: a population, and buffers shared by all clients."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clients.position import position
from fedsi.client_states import ClientStates
from fedsi.data.population import WHOLE, Population, Shard, shard_of
from fedsi.data.prepare import open_population, prepare_for
from fedsi.experiment import Experiment
from fedsi.experiment.server import MOST_REPEATS
from fedsi.kernels.cpu.product_choice import check_processor
from fedsi.learning.block import BlockTrainer
from fedsi.learning.client_round import Kept
from fedsi.learning.optimizers.table import OPTIMIZERS
from fedsi.learning.pooled import PooledTrainer
from fedsi.messages import (
    Estimate,
    Estimated,
    Evaluate,
    Evaluated,
    MessageError,
    Personalise,
    TakeInventory,
    Train,
    Trained,
    TrainedPooled,
    TrainPooled,
    split,
)
from fedsi.models.inventory import Inventory, inventory
from fedsi.privacy import canaries
from fedsi.threads import torch_threads

THREADS = 1
"""Threads of a node. With one, sums inside a matrix product have a fixed order."""


@lru_cache(maxsize=4)
def population_of(folder: str, experiment: str) -> Population:
    """Open the population of a node; it stays open.

    Args:
        folder: The population's folder; empty to prepare the experiment's corpus in the cache.
        experiment: TOML.
    """
    place = Path(folder) if folder else prepare_for(Experiment.from_toml(experiment))
    return open_population(place)


@lru_cache(maxsize=4)
def shard_of_node(folder: str) -> Shard:
    """Return the shard of the population that a node hosts."""
    return shard_of(Path(folder)) if folder else WHOLE


def _check_hosted(clients: NDArray[np.int64], folder: str) -> None:
    """Refuse clients of other shards.

    Raises:
        MessageError: A client is not hosted here.
    """
    shard = shard_of_node(folder)
    elsewhere = clients[~shard.hosts(clients)]
    if len(elsewhere):
        raise MessageError(f"client {elsewhere[0]} is not in {shard}, which this node hosts")


def _check_training(request: Train) -> None:
    """Refuse training that no server asks for.

    Raises:
        MessageError: The clip norm is not positive, the round or the attempt does not exist, or a
            client would be in the sum twice.
    """
    if not request.clip_norm > 0:
        raise MessageError(f"a clip norm must be positive, received {request.clip_norm}")
    if request.round_number < 1:
        raise MessageError(f"rounds begin with 1, received {request.round_number}")
    if not 0 <= request.attempt <= MOST_REPEATS:
        raise MessageError(f"a round has {MOST_REPEATS} repeats at most, not {request.attempt}")
    if len(np.unique(request.clients)) < len(request.clients):
        raise MessageError("a client is requested twice in one block")


@lru_cache(maxsize=1)
def _trainer(folder: str, experiment: str) -> BlockTrainer:
    population, settings = population_of(folder, experiment), Experiment.from_toml(experiment)
    check_processor(settings.client)
    return BlockTrainer(settings, population, at=position.move)


@lru_cache(maxsize=1)
def _pooled(folder: str, experiment: str) -> PooledTrainer:
    population = population_of(folder, experiment)
    return PooledTrainer(Experiment.from_toml(experiment), population, position.move)


def forget() -> None:
    """Release the buffers of a finished run and the code of a user's model."""
    _trainer.cache_clear()
    _pooled.cache_clear()


def inventory_of(request: TakeInventory, folder: str) -> Inventory:
    """Return the inventory of the experiment's model as this node has built it."""
    return inventory(_trainer(folder, request.experiment).model)


def estimate_block(request: Estimate, folder: str) -> Estimated:
    """Estimate the work of the clients of a request."""
    _check_hosted(request.clients, folder)
    experiment = Experiment.from_toml(request.experiment)
    population = population_of(folder, request.experiment)
    cap = experiment.examples_per_pass
    work = [0 if k >= canaries.FIRST else population.work(k, cap) for k in request.clients]
    return Estimated(np.array(work, np.int64))


def sends_updates(experiment: str, folder: str) -> bool:
    """Whether the server needs each client's update instead of their sum."""
    return _trainer(folder, experiment).algorithm.aggregate is not None


def train_block(request: Train, folder: str) -> Trained:
    """Train the block of a request and sum its updates.

    Raises:
        MessageError: The parameters do not fit the experiment's model, the vectors do not fit its
            algorithm, or the clip norm is not positive.
    """
    _check_hosted(request.clients, folder)
    _check_training(request)
    trainer = _trainer(folder, request.experiment)
    start = _aligned(request.parameters, trainer.model.layout.size)
    algorithm, size = trainer.algorithm, len(start)
    if len(request.sent) != len(algorithm.sent) * size:
        raise MessageError(
            f"the algorithm sends {len(algorithm.sent)} vectors of {size} numbers, received "
            f"{len(request.sent)} numbers"
        )
    sums, returned = (np.zeros(n * size, np.int64) for n in (1, len(algorithm.returned)))
    with torch_threads(THREADS):
        rows = trainer.train(
            start,
            request.clients.tolist(),
            request.round_number,
            sums,
            request.clip_norm,
            sent=split(algorithm.sent, request.sent),
            returned=split(algorithm.returned, returned),
            kept=_kept(request) if algorithm.kept else None,
            attempt=request.attempt,
        )
    position.leave()
    return Trained(sums=sums, rows=rows, returned=returned)


def train_together(request: TrainPooled, folder: str) -> TrainedPooled:
    """Train one learner on the pooled examples of a request's clients.

    Raises:
        MessageError: The parameters or the memory do not fit the experiment's model.
    """
    _check_hosted(request.clients, folder)
    trainer = _pooled(folder, request.experiment)
    size = trainer.model.layout.size
    start = _aligned(request.parameters, size)
    optimizer = Experiment.from_toml(request.experiment).client.optimizer
    expected = OPTIMIZERS[optimizer].memory(size)
    if len(request.memory) != expected:
        raise MessageError(
            f"{optimizer} remembers {expected} numbers, received {len(request.memory)}"
        )
    with torch_threads(THREADS):
        found = trainer.train(start, request.clients.tolist(), request.round_number, request.memory)
    position.leave()
    return TrainedPooled(found.parameters, found.memory, found.rows)


def _kept(request: Train) -> Kept:
    """Return the vectors that a request's clients keep.

    Raises:
        MessageError: The request lacks their folder, or the round of each client's.
    """
    if not request.states or len(request.state_rounds) != len(request.clients):
        raise MessageError("the algorithm's clients keep vectors, but the request names none")
    rounds = zip(request.clients.tolist(), request.state_rounds.tolist(), strict=True)
    return Kept(ClientStates(Path(request.states)), dict(rounds))


def personalise_block(request: Personalise, folder: str) -> Evaluated:
    """Fine-tune and evaluate the clients of a request.

    Raises:
        MessageError: The parameters do not fit the experiment's model.
    """
    _check_hosted(request.clients, folder)
    trainer = _trainer(folder, request.experiment)
    parameters = _aligned(request.parameters, trainer.model.layout.size)
    with torch_threads(THREADS):
        rows = trainer.personalise(parameters, request.clients.tolist())
    position.leave()
    return Evaluated(rows=rows)


def evaluate_block(request: Evaluate, folder: str) -> Evaluated:
    """Evaluate the clients of a request.

    Raises:
        MessageError: The parameters do not fit the experiment's model.
    """
    _check_hosted(request.clients, folder)
    trainer = _trainer(folder, request.experiment)
    parameters = _aligned(request.parameters, trainer.model.layout.size)
    with torch_threads(THREADS):
        rows = trainer.evaluate(parameters, request.clients.tolist())
    position.leave()
    return Evaluated(rows=rows)


def _aligned(parameters: NDArray[np.float32], size: int) -> torch.Tensor:
    """Copy into memory allocated by torch, whose fixed alignment BLAS kernels depend on."""
    if len(parameters) != size:
        raise MessageError(f"the model has {size} parameters, received {len(parameters)}")
    aligned = torch.empty(size)
    aligned.numpy()[:] = parameters
    return aligned
