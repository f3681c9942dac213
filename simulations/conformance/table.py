"""The table of adapters, and adapters of the user's own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from fedsi.errors import UserError
from fedsi.import_path import check_import_path, load_own
from simulations.conformance.adapter import Adapter

OPTION = "--adapter"
PFL = "pfl"
BUILT_IN: Mapping[str, str] = {
    "fedsi": "simulations.conformance.fedsi_adapter:adapter",
    "flower": "simulations.conformance.flower_adapter:server_side",
    "flower_client": "simulations.conformance.flower_adapter:client_side",
}
"""Functions that return an adapter, by name; ``pfl`` needs a Python besides."""


def adapter_of(name: str, pfl_python: Path | None) -> Adapter:
    """Return an adapter.

    Args:
        name: A name of ``BUILT_IN``, ``pfl``, or the import path of a function that returns one.
        pfl_python: The Python of an environment with pfl.

    Raises:
        UserError: There is none of that name, or pfl has no Python.
    """
    if name == PFL:
        from simulations.conformance.pfl_adapter import Pfl  # noqa: PLC0415

        if pfl_python is None or not pfl_python.exists():
            raise UserError(
                f"{OPTION} pfl needs --pfl-python with the Python of an environment that has pfl "
                "0.6; make one with: python -m venv pfl && pfl/bin/pip install "
                "'pfl[pytorch]==0.6.0'"
            )
        return Pfl(pfl_python)
    if name not in BUILT_IN and ":" not in name:
        raise UserError(
            f"there is no adapter {name!r}; choose from {', '.join([*BUILT_IN, PFL])}, or name "
            "your own as my_module:my_adapter"
        )
    if name not in BUILT_IN:
        check_import_path(OPTION, name)
    make = load_own(OPTION, BUILT_IN.get(name, name))
    if not callable(make):
        raise UserError(f"{OPTION} {name} names no function; name one that returns an adapter")
    made = cast("Callable[[], Adapter]", make)()
    asked = ("name", "release", "tree_noise", "cohorts", "counts", "epsilon")
    missing = [part for part in asked if not hasattr(made, part)]
    if missing:
        raise UserError(
            f"the adapter {name} has no {missing[0]}; docs/conformance.md lists what an adapter has"
        )
    return made
