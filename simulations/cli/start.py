"""The entry point of ``fedsi``, which Ctrl-C and SIGTERM can end even while libraries load."""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Load the command and run it; returns its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        from simulations.cli.main import main as command
    except ImportError as error:
        if error.name not in {"clients", "server", "simulations"}:
            raise
        sys.stderr.write(f"error: {error}\n")  # a file on PYTHONPATH hides a package of fedsi
        return 2
    code = command()
    # Nothing is left to interrupt; libraries would only print a traceback when they end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise ``KeyboardInterrupt``, but not inside an import, where some libraries swallow it."""
    if not _is_importing(frame):
        signal.default_int_handler(number, frame)
    sys.stderr.write("error: interrupted while libraries were loaded\n")
    sys.stderr.flush()
    os._exit(1)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
