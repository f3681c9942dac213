"""A time limit for code in this process."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

AGAIN_SECONDS = 5.0
"""Interval for retries, in case the code catches the exception."""
SOON_SECONDS = 0.1
"""Delay of a retry while the compiler is at work."""
GRACE_SECONDS = 60.0
"""Time after the limit until the process is ended, if the code cannot be interrupted."""

_COMPILER = {"numba", "llvmlite"}

_own: ContextVar[bool] = ContextVar("own", default=False)


class OutOfTimeError(BaseException):
    """The time is up. Not an ``Exception``, so that code does not catch it as its own error."""


@contextmanager
def own_process() -> Iterator[None]:
    """Allow ``time_limit`` to end this process: it is a fedsi command, not a user's program."""
    token = _own.set(True)
    try:
        yield
    finally:
        _own.reset(token)


@contextmanager
def time_limit(seconds: float, sentence: Callable[[], str]) -> Iterator[None]:
    """Raise ``OutOfTimeError`` in the code inside when its time is up.

    Python raises it between two of its instructions. Code that waits in C is interrupted if its
    system call is; code that computes in C is not. In an ``own_process`` such code ends the process
    after another ``GRACE_SECONDS``, unless it blocks Python's other threads. Outside the main
    thread, where there are no signals, there is no limit.

    Args:
        seconds: The time limit.
        sentence: Returns the message for ending the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=[over, seconds, sentence], daemon=True)
    if _own.get():
        watcher.start()
    before = signal.signal(signal.SIGALRM, _ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
        over.set()
        if watcher.ident:
            watcher.join()


def _ring(_number: int, frame: FrameType | None) -> None:
    # LLVM calls back into Python, where an exception would be printed and lost.
    if _compiles(frame):
        signal.setitimer(signal.ITIMER_REAL, SOON_SECONDS, AGAIN_SECONDS)
    else:
        raise OutOfTimeError


def _watch(over: threading.Event, seconds: float, sentence: Callable[[], str]) -> None:
    """End the process unless the code finishes in time; its files survive a kill."""
    main = threading.main_thread().ident or 0
    if over.wait(seconds + GRACE_SECONDS):
        return
    while _compiles(sys._current_frames().get(main)):
        if over.wait(GRACE_SECONDS):
            return
    shown = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides the cursor
    # Not through sys.stderr, whose lock the hanging code may hold.
    os.write(2, f"{shown}\nerror: {sentence()}\n".encode(errors="replace"))
    os._exit(1)


def _compiles(frame: FrameType | None) -> bool:
    """Whether a frame, or one of its callers, belongs to the compiler."""
    while frame:
        if frame.f_globals.get("__name__", "").partition(".")[0] in _COMPILER:
            return True
        frame = frame.f_back
    return False
