"""Training of a block whose clients are not summed: each client's update is returned."""

from dataclasses import replace

import numpy as np

from clients import pool
from fedsi.messages import Train, Trained
from fedsi.sums.fixed_point import decode

_NOTHING = np.zeros(0, np.int64)


def alone(request: Train, place: int) -> Train:
    """Return the request for one client of a block, without masks."""
    here = slice(place, place + 1)
    return replace(
        request,
        clients=request.clients[here],
        state_rounds=request.state_rounds[here],
        mask_key=_NOTHING,
        participants=_NOTHING,
    )


def train_apart(request: Train, folder: str) -> Trained:
    """Train the block of a request and return each client's update, in fixed point's resolution.

    Raises:
        MessageError: The request does not fit the experiment.
    """
    clients, size = len(request.clients), len(request.parameters)
    updates = np.zeros((clients, size), np.float32)
    rows = []
    for place, update in enumerate(updates):
        trained = pool.train_block(alone(request, place), folder)
        update[:] = decode(trained.sums)  # zeros unless it was aggregated
        rows.append(trained.rows)
    return Trained(_NOTHING, np.concatenate(rows), updates=updates.ravel())
