"""A stopwatch for all calls of one function."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Stopwatch:
    """Adds up the CPU seconds of a function's calls."""

    seconds: float = 0.0


@contextmanager
def timed(owner: Any, name: str) -> Iterator[Stopwatch]:
    """Within this context, time every call of a class's method or a module's function."""
    watch, function = Stopwatch(), getattr(owner, name)

    def measured(*arguments: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            watch.seconds += time.process_time() - began

    setattr(owner, name, measured)
    try:
        yield watch
    finally:
        setattr(owner, name, function)
