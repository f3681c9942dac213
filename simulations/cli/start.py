"""Where ``fedsi`` begins: a Ctrl-C while its libraries are loaded ends it like any other."""

import os
import signal
import sys


def main() -> int:
    """Load the command and run it; returns its exit code."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from simulations.cli.main import main as command  # noqa: PLC0415

    signal.signal(signal.SIGINT, usual)
    return command()


def _leave(*_: object) -> None:
    # Not by an exception: some libraries swallow one that comes while they are imported.
    sys.stderr.write("error: interrupted; nothing ran yet\n")
    sys.stderr.flush()
    os._exit(1)
