"""The record of a finished round."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedsi.messages import FAILED, REJECTED, Outcome
from server.aggregation import Aggregate
from server.cohorts.sampling import Draw


@dataclass(frozen=True)
class RoundRecord:
    """The record of a finished round: one row of ``rounds.csv``."""

    round: int
    """Counted from 1; 0 for the model before any training, which is only evaluated."""
    train_loss: float
    """Mean loss in nats per target token, over the aggregated clients with finite loss, before the
    local step that used it; NaN if there are none."""
    clients: int
    """Clients whose update was aggregated."""
    rejected: int
    """Clients whose update was not finite, out of range or above the norm bound."""
    failed: int
    """Clients that could not be trained, or whose node failed."""
    dropped: int
    """Clients that were drawn but did not report in time; they were not trained."""
    tokens: int
    train_seconds: float
    evaluation_seconds: float = 0.0
    clip_norm: float = math.inf
    """Largest L2 norm of an update; infinite without clipping."""
    clipped: int = 0
    """Clients whose update was clipped."""
    steps: int = 0
    """Local steps of the aggregated clients."""
    clipped_steps: int = 0
    """Local steps whose gradient ``client.gradient_clip`` or ``client.relative_clip`` clipped."""
    epsilon: float = math.inf
    """Privacy cost of all rounds so far; infinite without privacy. The other columns are the
    simulator's view: they are not private and not covered by epsilon."""
    heldout: Mapping[str, float] | None = None
    """Metrics of the held-out clients; None in rounds without evaluation."""
    unevaluated: int = 0
    """Held-out clients missing from the metrics because they or their node failed."""
    lost: int = 0
    """Clients of the cohort, including canaries, without a reply: each counts as failed, although
    it might not fail another time."""
    not_finite: int = 0
    """Rejected clients whose update was not finite. This column and the next seven count the
    rejected and the failed clients by kind; see ``fedsi.messages.Outcome``."""
    out_of_range: int = 0
    above_bound: int = 0
    raised: int = 0
    """Failed clients whose training raised an exception."""
    wrong_shape: int = 0
    too_slow: int = 0
    """Failed clients without a reply in time."""
    process_ended: int = 0
    node_failed: int = 0
    repeats: int = 0
    """Repeats of the round because too few clients contributed; the other columns are those of the
    last attempt, except the seconds."""
    download_bytes: int = 0
    """Bytes that all drawn clients would receive: the trained parameters and the algorithm's
    vectors, as float32."""
    upload_bytes: int = 0
    """Bytes that the trained clients would send: their update and the vectors that they return."""
    ended: str = ""
    """Reason why the run ended with this round: a key or an event of ``server.endings``."""

    @property
    def losses(self) -> dict[str, int]:
        """The number of contributions lost to each kind that happened, by the column's name."""
        names = (kind.name.lower() for kind in sorted(REJECTED | FAILED))
        return {name: getattr(self, name) for name in names if getattr(self, name)}


def record_of(
    number: int, cohort: Draw, members: int, trained: Aggregate, seconds: float, sent: int
) -> RoundRecord:
    """Return the record of a trained round, without what the server adds of itself.

    Args:
        number: The round, from 1.
        cohort: The clients that were drawn.
        members: Clients of the cohort that were asked; canaries, which come after them, do not
            count.
        trained: The aggregate of the last attempt.
        seconds: Seconds of all attempts.
        sent: Vectors that the algorithm sends to each client beside the parameters.
    """
    trained = replace(trained, rows=trained.rows[:members])
    outcome = trained.column("outcome")
    accepted = outcome == Outcome.AGGREGATED
    kinds = {kind: int((outcome == kind).sum()) for kind in REJECTED | FAILED}
    named: dict[str, Any] = {kind.name.lower(): count for kind, count in kinds.items()}
    failed = sum(kinds[kind] for kind in FAILED)
    total = trained.total()
    dropped = cohort.drawn - len(cohort.reporting)
    message = trained.sums.size * np.dtype(np.float32).itemsize
    return RoundRecord(
        round=number,
        train_loss=float(total.loss / total.tokens_with_loss)
        if total.tokens_with_loss
        else math.nan,
        clients=int(accepted.sum()),
        rejected=sum(kinds[kind] for kind in REJECTED),
        failed=failed,
        dropped=dropped,
        tokens=int(total.tokens),
        train_seconds=seconds,
        clipped=int(total.clipped),
        steps=round(total.steps),
        clipped_steps=round(total.clipped_steps),
        lost=trained.lost,
        **named,
        download_bytes=message * (1 + sent) * (members + dropped),
        upload_bytes=message * (1 + len(trained.returned)) * (members - failed),
    )
