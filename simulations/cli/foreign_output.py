"""Redirection of other code's output to standard error: user models, libraries, subprocesses."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

_OUTPUT, _ERRORS = 1, 2


@contextmanager
def others_to_stderr() -> Iterator[None]:
    """Within this context standard output is standard error, including output not from Python."""
    sys.stdout.flush()
    kept = os.dup(_OUTPUT)
    os.dup2(_ERRORS, _OUTPUT)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, _OUTPUT)
        os.close(kept)
