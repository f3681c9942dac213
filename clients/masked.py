"""Secure aggregation on a node: every client's vector is masked before it is added to the sum."""

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from clients import pool
from clients.apart import alone
from fedsi.experiment import Experiment
from fedsi.learning.algorithms.table import algorithm_of
from fedsi.messages import TRAINING_COLUMNS, MessageError, Outcome, Reveal, Revealed, Train, Trained
from fedsi.sums.secure.masked_round import OWN_SEED, PRIVATE_KEY, MaskedRound
from fedsi.sums.secure.masks import SECRET_BYTES
from fedsi.sums.totals import COUNTS, as_counts

_OUTCOME = TRAINING_COLUMNS.index("outcome")
_NOTHING = np.zeros(0, np.int64)

Ids = NDArray[np.int64]


def train_masked(request: Train, folder: str) -> Trained:
    """Train the block of a request and return the sum of its clients' masked vectors.

    A vector is the client's update, the vectors that the algorithm returns, and its counts. Clients
    whose update is not finite withdraw: they are not in the sum, like those that fail.

    Raises:
        MessageError: The request does not fit the experiment, or a client does not take part in the
            masked round.
    """
    masked = _masked_round(request, request.clients)
    experiment = Experiment.from_toml(request.experiment)
    vectors, parameters = 1 + len(algorithm_of(experiment).returned), len(request.parameters)
    total = np.zeros(vectors * parameters + COUNTS, np.int64)
    counted = partial(as_counts, cohort=experiment.server.largest_cohort)
    rows = np.zeros((len(request.clients), len(TRAINING_COLUMNS)))
    for place, client in enumerate(request.clients.tolist()):
        trained = pool.train_block(alone(request, place), folder)
        (row,) = trained.rows
        rows[place, _OUTCOME] = row[_OUTCOME]
        if row[_OUTCOME] == Outcome.AGGREGATED:
            vector = np.concatenate([trained.sums, trained.returned, counted(row)])
            masked.add_masks(vector, client)
            total += vector  # integers of NumPy wrap around, so this is the sum modulo 2^64
    sums, returned, counts = np.split(total, [parameters, -COUNTS])
    return Trained(sums, rows, returned, counts)


def reveal(request: Reveal) -> Revealed:
    """Return the shares that some survivors hold: one secret of every client, never both.

    Raises:
        MessageError: A client does not take part in the masked round, or did not survive.
    """
    masked = _masked_round(request, request.clients)
    survivors, here = set(request.survivors.tolist()), set(request.clients.tolist())
    if not here <= survivors <= masked.graph.keys():
        raise MessageError("shares are requested of clients that did not survive the round")
    owners, holders, shares = list[int](), list[int](), list[bytes]()
    for owner in masked.graph:
        holding = [holder for holder in masked.holders(owner) if holder in here]
        kind = OWN_SEED if owner in survivors else PRIVATE_KEY
        shares += masked.shares_of(kind, owner, holding)
        owners += [owner] * len(holding)
        holders += holding
    words = np.frombuffer(b"".join(shares), np.int64)
    return Revealed(np.array(owners, np.int64), np.array(holders, np.int64), words)


def _masked_round(request: Train | Reveal, clients: Ids) -> MaskedRound:
    """Return the masked round of a request.

    Raises:
        MessageError: Its key has another length, or one of the clients does not take part.
    """
    key = request.mask_key.tobytes()
    if len(key) != SECRET_BYTES:
        raise MessageError(f"a key of masks has {SECRET_BYTES} bytes, received {len(key)}")
    masked = _known(key, tuple(request.participants.tolist()), request.experiment)
    strangers: Sequence[int] = sorted(set(clients.tolist()) - masked.graph.keys())
    if strangers:
        raise MessageError(f"client {strangers[0]} does not take part in the masked round")
    return masked


@lru_cache(maxsize=1)
def _known(key: bytes, participants: tuple[int, ...], experiment: str) -> MaskedRound:
    neighbours = Experiment.from_toml(experiment).privacy.mask_neighbours
    return MaskedRound(key, np.array(participants, np.int64), neighbours)
