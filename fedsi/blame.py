"""Errors in the user's own code, reported in one sentence with the user's file and line."""

import importlib
import inspect
import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fedsi.errors import UserError

_HERE = Path(__file__).parents[1]
_PACKAGES = ("fedsi", "server", "clients", "simulations")
_LIBRARIES = ("torch", "numpy")


def _not_the_users() -> tuple[str, ...]:
    """Return path prefixes of files that the user cannot fix."""
    ours = [f"{_HERE / name}/" for name in _PACKAGES]
    specs = (find_spec(name) for name in _LIBRARIES)
    theirs = [
        f"{place}/" for spec in specs if spec for place in spec.submodule_search_locations or ()
    ]
    return (*ours, *theirs, "<frozen ", importlib.__file__)


@contextmanager
def blamed(failed: str) -> Iterator[None]:
    """Turn any error in the user's code into one sentence.

    Args:
        failed: The beginning of the sentence, such as ``my_model:Gru(4004) failed``.

    Raises:
        UserError: The code failed; gives the error's type, its first line, and the user's line.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # an exit would end the command without a word
        raise UserError(f"{failed}: {reason(error)}") from error


@contextmanager
def without_global_draws(called: str) -> Iterator[None]:
    """Refuse user code that draws from a generator shared by the whole process.

    Args:
        called: The function that is called, and where it is defined.

    Raises:
        UserError: It drew numbers from ``random``, ``numpy.random`` or ``torch``.
    """
    before = _global_generators()
    yield
    drawn = [name for name, state in _global_generators().items() if state != before[name]]
    if drawn:
        raise UserError(
            f"{called} draws from the global generator of {drawn[0]}, so that its result depends "
            "on what else the process does; draw from a generator of your own that is seeded with "
            "what the function is given"
        )


def _global_generators() -> dict[str, object]:
    """Return the states of the generators that a process shares, by module."""
    import numpy as np  # noqa: PLC0415 - naming an error's line needs neither
    import torch  # noqa: PLC0415

    return {
        "random": random.getstate(),
        "numpy.random": repr(np.random.get_state(legacy=False)),  # noqa: NPY002 - it is looked at
        "torch": bytes(torch.get_rng_state().numpy()),
    }


def place_of(function: object) -> str:
    """Return where a function or a class is defined, in brackets; empty if that is unknown."""
    while isinstance(function, partial):
        function = function.func
    if isinstance(function, type):
        function = inspect.getattr_static(function, "__init__")
    code = getattr(function, "__code__", None)
    return f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""


def reason(error: BaseException) -> str:
    """Return an error's type, its first line, and the line of the user's code that raised it."""
    first = (str(error).splitlines() or [""])[0]
    others = _not_the_users()
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(others)
    ]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {first}{place}"


def kind_of(value: object) -> str:
    """Return a description of a value's type, for a sentence."""
    return "None" if value is None else with_article(type(value))


def with_article(kind: type) -> str:
    """Return the name of a class after "a" or "an"."""
    return f"{'an' if kind.__name__[0].lower() in 'aeiou' else 'a'} {kind.__name__}"
