"""A time limit for code of this process."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN_SECONDS = 5.0
"""After which it is tried again, should the code have caught the exception."""


class OutOfTimeError(BaseException):
    """The time is up; not an ``Exception``, so that the code does not take it for its own."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``OutOfTimeError`` in the code inside when its time is up.

    Python raises it between two of its instructions: code that waits in C is interrupted if the
    operating system's call is, code that computes in C is not. Outside of the main thread, where
    there are no signals, there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


def _ring(*_: object) -> None:
    raise OutOfTimeError
