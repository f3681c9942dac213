"""The events of a run, and what receives them: a sink."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fedsi.experiment import Experiment, Scalar
from server.round_record import RoundRecord
from server.runs.summary import Summary

INTERRUPTED, FAILED = "interrupted", "failed"
"""The status of a run that did not get to its end, beside those of ``server.endings``."""


@dataclass(frozen=True)
class Started:
    """The beginning of a run, or of its continuation."""

    name: str
    """Name of the run: its folder's, or the trial's."""
    experiment: Experiment
    records: Sequence[RoundRecord] = ()
    """Rounds of the run's earlier parts; those after its checkpoint will be run again."""
    fresh: bool = True
    """Whether the run starts from nothing, so that what a sink has of it is out of date."""
    facts: Mapping[str, Scalar] = field(default_factory=dict)
    """The corpus, the engine and the like."""


@dataclass(frozen=True)
class Ended:
    """The end of a run, also of one that failed."""

    status: str
    reason: str = ""
    """The key or the event that ended it, or the error."""
    summary: Summary | None = None
    """None for a run that did not get to its end."""


class Sink(Protocol):
    """A receiver of a run's events.

    Anything may be raised by any method: the first error is logged, and the run goes on without the
    sink.
    """

    name: str
    """Its name in warnings."""

    def start(self, run: Started) -> None:
        """Receive the beginning of a run."""

    def round(self, record: RoundRecord) -> None:
        """Receive a finished round, which has been written to the run's folder.

        The first one is round 0, the evaluation of the untrained model.
        """

    def checkpoint(self, number: int) -> None:
        """Receive the number of a round whose checkpoint has been written."""

    def end(self, ended: Ended) -> None:
        """Receive the end of a run."""

    def close(self) -> None:
        """Release files, threads and processes; called once, at the end or after an error."""
