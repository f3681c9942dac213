"""Repeats of a round to which too few clients contributed, with the same cohort.

Nothing of such a round is released: its sums are dropped before noise is drawn, the state is that
of the round before, and the clients' participation counts once. A repeated round in which all
clients reply has the bits of one that was never repeated.
"""

import logging
from collections.abc import Callable

import numpy as np

from fedsi.experiment import Experiment
from fedsi.messages import FAILED, Outcome
from server.aggregation import Aggregate
from server.nodes import NodesError

log = logging.getLogger(__name__)


def trained_with_repeats(
    experiment: Experiment, members: int, round_number: int, train: Callable[[int], Aggregate]
) -> tuple[Aggregate, int]:
    """Train a cohort, and again as often as allowed while too few contribute.

    Args:
        experiment: The configuration.
        members: Clients of the cohort; canaries, which come after them, do not count.
        round_number: The round, from 1.
        train: Trains the cohort; receives the number of earlier attempts.

    Returns:
        The aggregate of the last attempt, and the number of earlier ones.

    Raises:
        NodesError: Too few contributed in every attempt, or no node replied in the last one.
    """
    repeats = experiment.server.repeats
    for attempt in range(repeats + 1):
        try:
            trained = train(attempt)
            missing = lacking(experiment, members, trained)
        except NodesError as error:
            if attempt == repeats:
                raise
            missing = str(error)
        if not missing:
            return trained, attempt
        if attempt < repeats:
            log.warning(
                "round %d is repeated with the same clients (%d of %d): %s",
                round_number, attempt + 1, repeats, missing,
            )  # fmt: skip
    raise NodesError(
        f"round {round_number} was given up and nothing of it is released, because {missing} in "
        f"each of {repeats + 1} attempts; see the log above, and continue with --resume, where "
        "server.minimum_replies and server.repeats may be changed"
    )


def lacking(experiment: Experiment, members: int, trained: Aggregate) -> str:
    """Return what a round lacks, or nothing.

    A single failing client may be at fault itself; if all of several fail, the cause is common.
    """
    outcome = trained.column("outcome")[:members]
    if members > 1 and np.isin(outcome, list(FAILED)).all():
        return f"none of {members} clients could be trained"
    contributed = int((outcome == Outcome.AGGREGATED).sum())
    least = min(experiment.server.minimum_replies or 0, members)
    if contributed >= least:
        return ""
    return f"{contributed} of {members} clients contributed, fewer than the {least} required"
