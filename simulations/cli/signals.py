"""Signals that end a command."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SOON = 0.01
"""Seconds after which an interrupt that could not be raised is tried again."""


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise ``KeyboardInterrupt``, but not where it would be swallowed or become another error.

    Imports may swallow it, so the command ends; pydantic wraps what is raised while it converts a
    model, so the interrupt waits until it has.
    """
    if _is_within(frame, "<frozen importlib"):
        sys.stderr.write("error: interrupted while libraries were loaded\n")
        sys.stderr.flush()
        os._exit(1)
    if _is_within(frame, f"{os.sep}pydantic{os.sep}"):
        again = threading.Timer(SOON, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    signal.default_int_handler(number, frame)


def _is_within(frame: FrameType | None, path: str) -> bool:
    """Whether a function of a file whose path contains ``path`` is running."""
    while frame is not None:
        if path in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Within this context a SIGTERM, sent by schedulers and ``kill``, acts like a Ctrl-C.

    This applies only if no other handler is installed, and where Python runs signal handlers.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
