"""Observers: what is called with each round of a run, and may end it."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from fedsi.experiment import Experiment
from server.round_record import RoundRecord

Observer = Callable[[Experiment, RoundRecord], bool | None]
"""Called after each round; the run stops if it returns True."""


@runtime_checkable
class RunObserver(Protocol):
    """An observer that is also told of the untrained model and of checkpoints."""

    def __call__(self, experiment: Experiment, record: RoundRecord) -> bool | None:
        """Receive a finished round, after it was written; the run stops if this returns True."""

    def untrained(self, record: RoundRecord) -> None:
        """Receive the row of round 0, the evaluation of the model before any training."""

    def checkpoint(self, number: int) -> None:
        """Receive the number of a round whose checkpoint was written, before its row is."""
