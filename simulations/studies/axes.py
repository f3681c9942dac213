"""Axes of a study: the varied keys and their values, as data.

An axis varies one key of the experiment (``key``), or several keys together (``name`` and
``changes``), over the values that it lists or, in a study that draws, over a range.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import FiniteFloat, model_validator

from fedsi.experiment import Experiment, Scalar
from fedsi.experiment.explanations import unknown_key
from fedsi.experiment.field_types import Settings
from fedsi.experiment.model_arguments import KEY as ARGUMENTS
from fedsi.experiment.paths import absolute, is_path

_UNSAFE = re.compile(r"[^\w.+:-]")
"""Characters that are replaced in folder names."""
_LONGEST = 60
"""Most characters of a point in a folder's name."""


@dataclass(frozen=True)
class Point:
    """One point of an axis."""

    axis: str
    """The axis's name."""
    value: Scalar
    changes: tuple[tuple[str, Scalar], ...]
    """Dotted keys of the experiment and their values."""
    short: str
    """Its part of a trial's name."""

    @property
    def text(self) -> str:
        """The value's text in tables."""
        return text_of(self.value)


class Axis(Settings):
    """An axis of a study.

    Raises:
        ValueError: The axis has no values, a value twice, or contradictory parts.
    """

    key: str | None = None
    """The key that takes the values."""
    name: str | None = None
    """Name of an axis of several keys."""
    values: tuple[Scalar, ...] = ()
    """The values, in the order of tables."""
    changes: tuple[dict[str, Scalar], ...] = ()
    """For an axis of several keys: the keys that each value sets."""
    low: FiniteFloat | None = None
    """Smallest number to draw."""
    high: FiniteFloat | None = None
    """Largest number to draw."""
    scale: Literal["log", "linear"] = "log"
    """Distribution of drawn numbers: uniform, or uniform in the logarithm."""
    label: str | None = None
    """Prefix of the value in folder names; by default the key without its section."""

    @model_validator(mode="after")
    def _is_one_axis(self) -> Self:
        if (self.key is None) == (self.name is None):
            raise ValueError(
                "an axis has either a key, which takes its values, or a name and changes"
            )
        if (self.name is None) != (not self.changes):
            raise ValueError(f"the axis {self.called} needs a name and changes together, or a key")
        if self.changes and len(self.changes) != len(self.values):
            raise ValueError(
                f"the axis {self.called} has {len(self.values)} values and {len(self.changes)} "
                "changes; each value needs its own"
            )
        if self.is_range and self.values:
            raise ValueError(
                f"the axis {self.called} has values and a range; leave out the values, or low and "
                "high"
            )
        if not self.is_range and not self.values:
            raise ValueError(f"the axis {self.called} has no values; give at least one")
        texts = [text_of(value) for value in self.values]
        twice = next((text for text in texts if texts.count(text) > 1), None)
        if twice is not None:
            raise ValueError(f"the axis {self.called} has the value {twice} twice; leave one out")
        return self

    @model_validator(mode="after")
    def _range_can_be_drawn_from(self) -> Self:
        if not self.is_range:
            return self
        if self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(
                f"the axis {self.called} needs low below high, not low = {self.low} and high = "
                f"{self.high}"
            )
        if self.scale == "log" and self.low <= 0:
            raise ValueError(
                f"the axis {self.called} starts at {self.low:g}, which has no logarithm; set scale "
                '= "linear" or a low above 0'
            )
        return self

    @model_validator(mode="after")
    def _keys_are_keys(self) -> Self:
        known = sorted(Experiment().flat())
        for key in self.keys:
            if key == "seed":
                raise ValueError("an axis cannot vary the seed; set seeds to their number")
            if key not in known and not key.startswith(f"{ARGUMENTS}."):
                raise ValueError(unknown_key(key, known))
        return self

    @property
    def called(self) -> str:
        """Its name in tables: the key, or the name of an axis of several keys."""
        return self.key or self.name or "without a name"

    @property
    def keys(self) -> frozenset[str]:
        """All keys that it sets."""
        if self.key is not None:
            return frozenset([self.key])
        return frozenset(key for change in self.changes for key in change)

    def always_sets(self, key: str) -> bool:
        """Whether each of its values sets a key."""
        return self.key == key or (
            bool(self.changes) and all(key in change for change in self.changes)
        )

    @property
    def is_range(self) -> bool:
        """Whether its values are drawn from a range."""
        return self.low is not None or self.high is not None

    def located(self, folder: Path) -> Self:
        """Return the axis with absolute paths, for values that are paths relative to a folder."""

        def located_in(key: str, value: Scalar) -> Scalar:
            return absolute(key, value, folder) if isinstance(value, str) else value

        values = tuple(located_in(self.key or "", value) for value in self.values)
        changes = tuple({k: located_in(k, v) for k, v in one.items()} for one in self.changes)
        if (values, changes) == (self.values, self.changes):
            return self
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(
            **{**given, "values": values, **({"changes": changes} if changes else {})}
        )

    def points(self) -> tuple[Point, ...]:
        """Return the points of an axis that lists its values."""
        changes = self.changes or tuple({self.key or "": value} for value in self.values)
        return tuple(map(self._point, self.values, changes))

    def drawn(self, rng: np.random.Generator) -> Point:
        """Draw a point: one of the values, or a number of the range with three digits."""
        if not self.is_range:
            points = self.points()
            return points[int(rng.integers(len(points)))]
        low, high = self.low or 0.0, self.high or 0.0
        number = (
            math.exp(rng.uniform(math.log(low), math.log(high)))
            if self.scale == "log"
            else rng.uniform(low, high)
        )
        value: Scalar = float(f"{number:.3g}")
        if isinstance(Experiment().flat().get(self.key or ""), int):
            value = round(number)
        return self._point(value, {self.key or "": value})

    def _point(self, value: Scalar, changes: dict[str, Scalar]) -> Point:
        label = self.label if self.label is not None else self.called.rpartition(".")[2]
        text = Path(str(value)).name if is_path(self.called, value) else None
        short = label + _file_part(value, text)
        return Point(self.called, value, tuple(changes.items()), short)


def text_of(value: Scalar) -> str:
    """Return a value's text in tables."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "∞" if value == math.inf else f"{value:g}"
    return str(value)


def _file_part(value: Scalar, shown: str | None) -> str:
    """Return a value in a form for folder names, different for different values.

    Args:
        value: The value.
        shown: What stands for it, if it is too long.
    """
    text = f"{value:g}" if isinstance(value, float) else text_of(value)
    part = _UNSAFE.sub("_", text if shown is None else shown)[:_LONGEST]
    return part if part == text else f"{part}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
