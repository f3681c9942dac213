"""A time limit for code of this process."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

AGAIN_SECONDS = 5.0
"""After which it is tried again, should the code have caught the exception."""
SOON_SECONDS = 0.1
"""After which it is tried again, should the compiler be at work."""
GRACE_SECONDS = 60.0
"""How much longer code may take that nothing interrupts, until the process is ended."""

_COMPILER = {"numba", "llvmlite"}

_own: ContextVar[bool] = ContextVar("own", default=False)


class OutOfTimeError(BaseException):
    """The time is up; not an ``Exception``, so that the code does not take it for its own."""


@contextmanager
def own_process() -> Iterator[None]:
    """Let ``time_limit`` end the process inside: it is a command of fedsi, not a user's program."""
    token = _own.set(True)
    try:
        yield
    finally:
        _own.reset(token)


@contextmanager
def time_limit(seconds: float, sentence: Callable[[], str]) -> Iterator[None]:
    """Raise ``OutOfTimeError`` in the code inside when its time is up.

    Python raises it between two of its instructions: code that waits in C is interrupted if the
    operating system's call is, code that computes in C is not. In an ``own_process`` such code ends
    the process after ``GRACE_SECONDS`` more, unless it keeps Python's other threads from running.
    Outside of the main thread, where there are no signals, there is no limit.

    Args:
        seconds: The time.
        sentence: Returns what is said if the process has to be ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()
    if _own.get():
        threading.Thread(target=_watch, args=[over, seconds, sentence], daemon=True).start()
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


def _ring(_number: int, frame: FrameType | None) -> None:
    # LLVM calls back into Python, and an exception that is raised there is printed and lost.
    if _compiles(frame):
        signal.setitimer(signal.ITIMER_REAL, SOON_SECONDS, AGAIN_SECONDS)
    else:
        raise OutOfTimeError


def _watch(over: threading.Event, seconds: float, sentence: Callable[[], str]) -> None:
    """End the process, unless it is over in time; its files are made to survive a kill."""
    main = threading.main_thread().ident or 0
    if over.wait(seconds + GRACE_SECONDS):
        return
    while _compiles(sys._current_frames().get(main)):
        if over.wait(GRACE_SECONDS):
            return
    shown = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides the cursor
    # Not by sys.stderr, whose lock the code that hangs may hold.
    os.write(2, f"{shown}\nerror: {sentence()}\n".encode(errors="replace"))
    os._exit(1)


def _compiles(frame: FrameType | None) -> bool:
    """Whether a frame, or one that called it, is of the compiler."""
    while frame:
        if frame.f_globals.get("__name__", "").partition(".")[0] in _COMPILER:
            return True
        frame = frame.f_back
    return False
