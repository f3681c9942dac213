"""What a person runs: the command line, engines, studies, reports, presets, benchmarks."""

from simulations.simulate import Result, simulate

__all__ = ["Result", "simulate"]
