"""One line of the scaling benchmark."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A measured number."""

    measure: str
    value: float
    unit: str
    """Empty for a ratio."""
    target: str = ""
    """What it should be; empty where nothing is asked."""
