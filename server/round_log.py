"""A line of log for each round, where Flower itself starts the server and shows what it logs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fedsi.experiment import Experiment
from server.round_record import RoundRecord

log = logging.getLogger(__name__)


def log_round(experiment: Experiment, record: RoundRecord) -> None:
    """Log a round: its losses, and what became of its clients."""
    heldout = f", held-out {record.heldout['loss']:.3f}" if record.heldout else ""
    lost = record.rejected + record.failed
    more = f", {lost:,} lost" if lost else ""
    more += f", repeated {record.repeats} times" if record.repeats else ""
    log.info(
        "round %d of %d: cohort %.3f%s, %d clients%s, %.1f s",
        record.round, experiment.server.rounds, record.train_loss, heldout, record.clients, more,
        record.train_seconds + record.evaluation_seconds,
    )  # fmt: skip


@contextmanager
def rounds_shown() -> Iterator[None]:
    """Within this context these lines go to standard error, which Flower passes on to its user."""
    handler, before = logging.StreamHandler(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
