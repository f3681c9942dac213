"""Simulations on this machine: the command line, engines, studies, reports, presets, benchmarks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulations.result import Result
    from simulations.simulation import simulate

__all__ = ["Result", "simulate"]


def __getattr__(name: str) -> Any:
    # The libraries take seconds to import, which must not delay the command's first line.
    if name in __all__:
        from simulations import simulation  # noqa: PLC0415

        return getattr(simulation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
