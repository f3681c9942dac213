"""Loops in Python that are compiled to machine code."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

_PACKAGE = Path(__file__).parent
SOURCES = (
    "models/attention.py",
    "models/layers.py",
    "models/recurrent.py",
    "compiler.py",
    "limits.py",
    "sums/clipping.py",
    "sums/updates.py",
    *(
        f"kernels/cpu/{name}.py"
        for name in (
            "attention_loops",
            "bits",
            "layer_norm",
            "matrix_products",
            "recurrence",
            "softmax",
            "tiles",
        )
    ),
)
"""The files whose functions and constants compiled code is made of."""


def compiled(function: F) -> F:
    """Compile a function for this processor at its first call, and keep the code on disk.

    Sums may be taken in another order than written and products fused with sums, which is what
    makes loops fit for vector instructions; the order is the compiler's and the same each time.
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
        with _kept_in(_FOLDER):
            return compiler(cache=True)(function)
    except RuntimeError:
        # There is no folder that could be written to.
        return compiler(cache=False)(function)


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Let numba keep the code of functions that are decorated meanwhile in a folder."""
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before


def sources_sha256() -> str:
    """Return the hash of all sources of compiled code."""
    contents = ((_PACKAGE / name).read_bytes() for name in SOURCES)
    return hashlib.sha256(b"".join(contents)).hexdigest()


# numba renews the code of a function when its own file changes, not when one that it calls does or
# a constant of another file; hence a folder for each state of all of them.
_FOLDER = _PACKAGE / "__pycache__" / f"compiled-{sources_sha256()[:16]}"
