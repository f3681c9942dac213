"""Command and environment of fedsi's own processes."""

import os
import sys
from pathlib import Path

_LAUNCH = Path(__file__).with_name("launch.py")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def own_command(module: str, *arguments: object) -> list[str]:
    """Return the command that runs a module of fedsi, safe from files in the working folder."""
    return [sys.executable, "-P", str(_LAUNCH), module, *map(str, arguments)]


def inherited_environment() -> dict[str, str]:
    """Return this process's environment and import path, without the working folder.

    ``launch`` puts that folder last.
    """
    here = os.path.realpath(Path.cwd())
    paths = [path for path in sys.path if path and os.path.realpath(path) != here]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def single_threaded_environment() -> dict[str, str]:
    """Return ``inherited_environment`` with one thread for numerics."""
    return {**inherited_environment(), **dict.fromkeys(_THREADS, "1")}
