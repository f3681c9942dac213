"""What others print goes to standard error: a user's model, a library, a program they start."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

_OUTPUT, _ERRORS = 1, 2


@contextmanager
def others_to_stderr() -> Iterator[None]:
    """Let standard output be standard error inside, also for what does not print through Python."""
    sys.stdout.flush()
    kept = os.dup(_OUTPUT)
    os.dup2(_ERRORS, _OUTPUT)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, _OUTPUT)
        os.close(kept)
