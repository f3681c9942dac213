"""The observer that passes a run's events to its sinks, none of which can stop the run."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from fedsi.blame import reason
from fedsi.errors import UnfinishedError, UserError
from fedsi.experiment import Experiment
from server.round_record import RoundRecord
from simulations.tracking.sink import FAILED, INTERRUPTED, Ended, Sink, Started

if TYPE_CHECKING:
    from server.runs.summary import Summary

log = logging.getLogger(__name__)

_ERRORS = (Exception, SystemExit)
"""What a sink may raise without an effect on the run; a Ctrl-C still ends it."""


class Guarded:
    """A sink whose first error is one warning, after which it is not called again.

    Args:
        sink: The sink.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.failed = False

    def start(self, run: Started) -> None:
        """Pass on the beginning of a run."""
        self._try(lambda: self._sink.start(run))

    def round(self, record: RoundRecord) -> None:
        """Pass on a round."""
        self._try(lambda: self._sink.round(record))

    def checkpoint(self, number: int) -> None:
        """Pass on a checkpoint."""
        self._try(lambda: self._sink.checkpoint(number))

    def end(self, ended: Ended) -> None:
        """Pass on the end of a run, and close the sink."""
        self._try(lambda: self._sink.end(ended))
        self._try(self._sink.close)

    def _try(self, call: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            call()
        except _ERRORS as error:
            self.failed = True
            log.warning(
                "%s gets nothing more of this run, which goes on without it: %s",
                self._sink.name,
                _why(error),
            )
            with suppress(*_ERRORS):
                self._sink.close()


class Watch:
    """An observer of a run that passes its events to sinks.

    Args:
        sinks: The sinks.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = [Guarded(sink) for sink in sinks]
        self.summary: Summary | None = None
        """The result of the run, once there is one."""

    def __call__(self, experiment: Experiment, record: RoundRecord) -> None:
        """Pass on a finished round."""
        del experiment
        for sink in self._sinks:
            sink.round(record)

    def untrained(self, record: RoundRecord) -> None:
        """Pass on round 0."""
        for sink in self._sinks:
            sink.round(record)

    def start(self, run: Started) -> None:
        """Pass on the beginning of the run."""
        for sink in self._sinks:
            sink.start(run)

    def checkpoint(self, number: int) -> None:
        """Pass on a checkpoint."""
        for sink in self._sinks:
            sink.checkpoint(number)

    def end(self, ended: Ended) -> None:
        """Pass on the end of the run."""
        for sink in self._sinks:
            sink.end(ended)


@contextmanager
def watched(sinks: Sequence[Sink]) -> Iterator[Watch]:
    """Tell sinks of a run's end, however it ends, and close them.

    Args:
        sinks: The sinks.

    Yields:
        The observer to run it with. Its ``start`` is to be called when the run starts, and its
        ``summary`` is to be set to the result.
    """
    watch = Watch(sinks)
    try:
        yield watch
    except KeyboardInterrupt:
        watch.end(Ended(INTERRUPTED))
        raise
    except BaseException as error:
        watch.end(Ended(FAILED, _why(error)))
        raise
    found = watch.summary
    watch.end(Ended(found.status, found.ended_by, found) if found else Ended(FAILED))


def _why(error: BaseException) -> str:
    told = isinstance(error, UserError | UnfinishedError)
    return str(error) if told else reason(error)
