"""Totals over the clients of a round, from their rows or as integers summed under masks."""

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from fedsi.messages import TRAINING_COLUMNS, Outcome

LOSS_BITS = 20
"""Fractional bits of a summed loss: a resolution of 10^-6 nats."""


@dataclass(frozen=True)
class Totals:
    """Sums over a round's aggregated clients."""

    weight: float
    examples: float
    tokens: float
    clipped: float
    """Clients whose update was clipped."""
    steps: float
    clipped_steps: float
    """Local steps whose gradient was clipped."""
    loss: float
    """Of the clients whose loss is finite, in nats."""
    tokens_with_loss: float
    """Target tokens of these clients."""


_LOSS = list(Totals.__dataclass_fields__).index("loss")
COUNTS = len(Totals.__dataclass_fields__)
"""Number of integers that carry the totals under masks."""


def totals_of(rows: NDArray[np.float64]) -> Totals:
    """Return the totals of clients' rows, ``[clients, TRAINING_COLUMNS]``."""
    columns = dict(zip(TRAINING_COLUMNS, rows.T, strict=True))
    accepted = columns["outcome"] == Outcome.AGGREGATED
    # The loss of one client may be infinite although its update is good.
    told = accepted & np.isfinite(columns["loss"])
    return Totals(
        weight=columns["weight"].sum(),
        examples=columns["examples"][accepted].sum(),
        tokens=columns["tokens"][accepted].sum(),
        clipped=columns["clipped"].sum(),
        steps=columns["steps"][accepted].sum(),
        clipped_steps=columns["clipped_steps"][accepted].sum(),
        loss=columns["loss"][told].sum(),
        tokens_with_loss=columns["tokens"][told].sum(),
    )


def as_counts(row: NDArray[np.float64], cohort: int) -> NDArray[np.int64]:
    """Return what a client's row adds to the totals as integers, ``[COUNTS]``.

    A loss so large that those of a cohort could overflow is left out, as an infinite one is.

    Args:
        row: The row of an aggregated client, ``[TRAINING_COLUMNS]``.
        cohort: Largest number of clients that are summed.
    """
    values = np.array(astuple(totals_of(row[None])))
    if abs(values[_LOSS]) * 2.0**LOSS_BITS > 2.0**62 / cohort:
        values[_LOSS:] = 0.0
    values[_LOSS] *= 2.0**LOSS_BITS
    counts: NDArray[np.int64] = np.rint(values).astype(np.int64)
    return counts


def from_counts(counts: NDArray[np.int64]) -> Totals:
    """Return the totals of summed integers, ``[COUNTS]``."""
    values = counts.astype(np.float64)
    values[_LOSS] /= 2.0**LOSS_BITS
    return Totals(*values.tolist())
