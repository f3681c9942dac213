"""Who wants to know about rounds as they end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fedsi.experiment import Experiment
from server.rounds import RoundRecord

Observer = Callable[[Experiment, RoundRecord], None]


def _nobody(_experiment: Experiment, _record: RoundRecord) -> None:
    """Ignore the round."""


current: ContextVar[Observer] = ContextVar("observer", default=_nobody)


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Have ``observer`` called after each round of a ServerApp that runs in this context."""
    token = current.set(observer)
    try:
        yield
    finally:
        current.reset(token)
