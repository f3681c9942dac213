"""The best model of a run: that of the evaluation with the lowest held-out loss.

While it is the last model that a checkpoint was written of, it is in the checkpoint; before a later
checkpoint is written, it gets a file of its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.rounds import RoundRecord, ServerState


@dataclass(frozen=True)
class Best:
    """The best model so far."""

    round: int
    loss: float
    """Held-out, in nats per target token."""
    parameters: NDArray[np.float32]
    """``[parameters]``."""


def better(best: Best | None, state: ServerState, record: RoundRecord) -> Best | None:
    """Return the best model after a round; of equal ones the earlier."""
    loss = record.heldout["loss"] if record.heldout else math.nan
    if loss < (best.loss if best else math.inf):
        return Best(record.round, loss, state.parameters)
    return best


def recalled(
    records: Sequence[RoundRecord], state: ServerState, read: Callable[[], NDArray[np.float32]]
) -> Best | None:
    """Return the best model of a run that goes on.

    Args:
        records: Of the rounds before.
        state: After the last of them.
        read: Returns the parameters that have a file of their own.
    """
    losses = [(r.heldout["loss"], r.round) for r in records if r.heldout]
    loss, number = min((pair for pair in losses if pair[0] < math.inf), default=(math.inf, 0))
    if not number:
        return None
    return Best(number, loss, state.parameters if number == state.round_number else read())
