"""The facts that a run's bits depend on besides its experiment, written when it starts."""

import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from fedsi.experiment import Experiment
from fedsi.tasks.table import trained_by_hand

PROVENANCE = "provenance.json"

_BITS = ("processor", "vector_bits", "kernels", "python", "numba", "numpy", "torch")
"""Facts that must be equal for equal bits. Workers and engines need not be."""
_PACKAGES = ("numba", "numpy", "torch")

EARLIER = "earlier"
"""Key of the facts of machines that computed an earlier part of the run."""


def provenance(experiment: Experiment, engine: str, workers: int | None) -> dict[str, Any]:
    """Return the facts about this process and its machine; and whether the clock ends the run.

    Args:
        experiment: The configuration.
        engine: The engine that runs the nodes.
        workers: Number of nodes that it started; None if it started none.
    """
    from fedsi.kernels.cpu import product_choice, tiles  # noqa: PLC0415

    by_hand = trained_by_hand(experiment)
    own = by_hand and product_choice.products_of(experiment.client) == product_choice.OWN
    return {
        **machine_facts(),
        "precision": experiment.client.precision,
        "products": f"tiles of {tiles.ROWS} rows and {tiles.COLUMNS} columns"
        if own
        else "PyTorch's",
        "engine": engine,
        "workers": workers,
        "clock": experiment.server.budget_seconds is not None,
    }


def machine_facts() -> dict[str, Any]:
    """Return the facts about this machine and its software that bits depend on."""
    # Imported here because they load the compiler, which a server without its own node does not
    # need.
    from fedsi import compiler  # noqa: PLC0415
    from fedsi.kernels.cpu import tiles  # noqa: PLC0415

    return {
        "processor": processor(),
        "vector_bits": 8 * tiles.VECTOR_BYTES,
        "kernels": compiler.sources_sha256()[:16],
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the differing facts that bits depend on, for a sentence."""
    return [
        f"{key} was {before.get(key)} and is {now[key]}"
        for key in _BITS
        if before.get(key) != now[key]
    ]


def processor() -> str:
    """Return the name of the processor's model."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()
