"""The entry point of ``fedsi``, which Ctrl-C and SIGTERM can end even while libraries load."""

import signal
import sys


def main() -> int:
    """Load the command and run it; returns its exit code."""
    try:
        from simulations.cli.signals import interrupt

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupt)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, interrupt)
        from simulations.cli.main import main as command
    except KeyboardInterrupt:  # before the handler above was there
        sys.stderr.write("error: interrupted while libraries were loaded\n")
        return 1
    except ImportError as error:
        if error.name not in {"clients", "server", "simulations"}:
            raise
        sys.stderr.write(f"error: {error}\n")  # a file on PYTHONPATH hides a package of fedsi
        return 2
    code = command()
    # Nothing is left to interrupt; libraries would only print a traceback when they end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code
