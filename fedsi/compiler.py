"""Compilation of Python loops to machine code."""

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
            "active_rows",
            "adamw",
            "attention_loops",
            "bits",
            "int8_rows",
            "int8_tiles",
            "layer_norm",
            "matrix_products",
            "ranks",
            "recurrence",
            "softmax",
            "tiles",
        )
    ),
)
"""The files that contain the functions and constants of compiled code."""


def compiled(function: F) -> F:
    """Compile a function for this processor at its first call, and cache the code on disk.

    The compiler may reorder sums and fuse products with sums, which allows vector instructions. Its
    order is the same each time.
    """
    return _compile(function, {"reassoc", "contract", "nsz"})


def compiled_as_written(function: F) -> F:
    """Compile like ``compiled``, but round exactly as written."""
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
        # There is no writable folder for the cache.
        return compiler(cache=False)(function)


def compiled_code_folder(function: Callable[..., Any]) -> str | None:
    """Return the folder of a compiled function's code; None if it cannot be saved."""
    folder: str | None = cast("Any", function).stats.cache_path
    return folder


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """Within this context numba caches compiled functions in ``folder``."""
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before


def sources_sha256() -> str:
    """Return the hash of all source files of compiled code."""
    contents = ((_PACKAGE / name).read_bytes() for name in SOURCES)
    return hashlib.sha256(b"".join(contents)).hexdigest()


# numba recompiles a function when its own file changes, but not when a function that it calls or a
# constant of another file changes. So each state of all source files has its own folder.
_FOLDER = _PACKAGE / "__pycache__" / f"compiled-{sources_sha256()[:16]}"
