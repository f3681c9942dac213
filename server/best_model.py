"""The best model of a run, which is that of the evaluation with the lowest held-out loss.

If it is the last model with a checkpoint, it is in the checkpoint; before a later checkpoint is
written, it is saved to its own file.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.round_record import RoundRecord
from server.rounds import ServerState


@dataclass(frozen=True)
class Best:
    """The best model so far."""

    round: int
    loss: float
    """Held-out loss in nats per target token."""
    parameters: NDArray[np.float32]
    """``[parameters]``."""


def better(best: Best | None, state: ServerState, record: RoundRecord) -> Best | None:
    """Return the best model after a round; ties go to the earlier one.

    The untrained model of round 0 is none of them.
    """
    loss = record.heldout["loss"] if record.heldout and record.round else math.nan
    if loss < (best.loss if best else math.inf):
        return Best(record.round, loss, state.parameters)
    return best


def recalled(
    records: Sequence[RoundRecord], state: ServerState, read: Callable[[], NDArray[np.float32]]
) -> Best | None:
    """Return the best model of a resumed run.

    Args:
        records: The records of earlier rounds.
        state: The state after the last of them.
        read: Returns the parameters saved in a separate file.
    """
    losses = [(r.heldout["loss"], r.round) for r in records if r.heldout and r.round]
    loss, number = min((pair for pair in losses if pair[0] < math.inf), default=(math.inf, 0))
    if not number:
        return None
    return Best(number, loss, state.parameters if number == state.round_number else read())
