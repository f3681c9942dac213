"""A line of the scaling benchmark."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A measured number."""

    measure: str
    value: float
    unit: str
    """Empty for a ratio."""
    target: str = ""
    """The target; empty if there is none."""
