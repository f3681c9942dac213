"""Loops in Python that are compiled to machine code."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a function for this processor at its first call, and keep the code on disk.

    Sums may be taken in another order than written and products fused with sums, which is what
    makes loops fit for vector instructions; the order is the compiler's and the same each time.
    What is kept on disk is renewed when the function's own file changes, so a compiled function
    calls only those of its own file.
    """
    return _compile(function, {"reassoc", "contract", "nsz"})


def compiled_as_written(function: F) -> F:
    """Compile like ``compiled``, with every rounding where it was written."""
    return _compile(function, set())


def _compile(function: F, freedom: set[str]) -> F:
    def compiler(*, cache: bool) -> Callable[[F], F]:
        return cast(
            "Callable[[F], F]",
            numba.njit(cache=cache, fastmath=freedom, error_model="numpy", nogil=True),
        )

    try:
        return compiler(cache=True)(function)
    except RuntimeError:
        # There is no folder that could be written to.
        return compiler(cache=False)(function)
