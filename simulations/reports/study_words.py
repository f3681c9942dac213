"""Names of a study's places, settings and gaps in sentences and tables."""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedsi.experiment import Experiment
from fedsi.experiment.paths import PATHS, is_path
from fedsi.models.positions.table import ENCODINGS
from simulations.reports.figures import label
from simulations.studies.axes import Point
from simulations.studies.results import GridPoint, HeldoutPart, Setting
from simulations.studies.statistics import FEWEST_SEEDS, Interval, t_interval
from simulations.studies.study import Combination

NO_RUN = "not finished"
"""Text in tables if no run of a setting finished."""

_BRACKETED = re.compile(r"\[[^]]*\]|\([^)]*\)")
_ARCHITECTURE, _POSITIONS, _START = "model.architecture", "model.positions", "model.init_from"
_ARM = "arm"
_PLAIN = frozenset({_ARCHITECTURE, _POSITIONS, _START, _ARM})
"""Axes whose values need no name before them."""
_SHORT = {
    "target_epsilon": "epsilon",
    "client.learning_rate": "client lr",
    "server.learning_rate": "server lr",
    _START: "start",
}


def cell(point: Point) -> str:
    """Return the text of a point's value, for a table or a legend that names its axis."""
    if point.axis == _ARCHITECTURE:
        return label(str(point.value))
    if point.axis == _POSITIONS:
        return ENCODINGS[str(point.value)].label
    if point.axis == _START and point.value in PATHS[_START]:
        return "random weights"
    if is_path(point.axis, point.value):
        tail = "/".join(Path(point.text).parts[-2:])
        return f"weights of {tail}" if point.axis == _START else tail
    return point.text


def point_words(point: Point) -> str:
    """Return a point's text in a sentence: its value, after its axis unless it says that itself."""
    return cell(point) if point.axis in _PLAIN else f"{axis_words(point.axis)} {cell(point)}"


def axis_words(name: str) -> str:
    """Return an axis's short name: without its section, unless several sections have such a key."""
    if name in _SHORT:
        return _SHORT[name]
    section, _, key = name.rpartition(".")
    several = section and sum(one.endswith(f".{key}") for one in Experiment().flat()) > 1
    return f"{section} {key}".replace("_", " ") if several else key.replace("_", " ")


def legend_title(combinations: Iterable[Combination]) -> str | None:
    """Return the whole keys of the axes that a legend's labels are values of, in their order.

    None if the labels say it themselves, as the names of architectures do.
    """
    axes = list(dict.fromkeys(point.axis for points in combinations for point in points))
    if set(axes) <= _PLAIN:
        return None
    return ", ".join(name if "." in name else axis_words(name) for name in axes)


def values_text(points: Combination) -> str:
    """Return a combination's values, for a legend with ``legend_title``."""
    return ", ".join(map(cell, points)) or "the experiment"


def words(points: Combination) -> str:
    """Return a combination's text in a sentence; "the experiment" for an empty one."""
    return ", ".join(map(point_words, points)) or "the experiment"


def interval_text(interval: Interval) -> str:
    """Return a difference, with its interval if there is one."""
    if not interval.low > float("-inf"):
        return f"{interval.estimate:+.3f}"
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def loss_text(setting: Setting, part: HeldoutPart) -> str:
    """Return a setting's mean loss and its 95 % interval over seeds, or why there is none."""
    seeds = len(setting.results)
    if not seeds:
        return NO_RUN
    if setting.diverged:
        return "diverged" if seeds == 1 else f"diverged {setting.diverged} of {seeds}"
    stopped = setting.results[0].trial.rounds
    early = "" if stopped is None else f" after {stopped} rounds"
    return mean_text(setting.values("loss", part)) + early


def mean_text(values: Sequence[float]) -> str:
    """Return a mean, with half of its 95 % interval if there are enough seeds."""
    if not values:
        return "-"
    interval = t_interval(values)
    half = f" ± {interval.high - interval.estimate:.3f}" if len(values) >= FEWEST_SEEDS else ""
    return f"{interval.estimate:.3f}{half}"


def mean_of_seeds_text(values: Sequence[float], seeds: int) -> str:
    """Return ``mean_text``, with the number of seeds that it is of if some have no value."""
    some = f" ({len(values)} of {seeds} seeds)" if 0 < len(values) < seeds else ""
    return mean_text(values) + some


def share_text(setting: Setting, metric: str, part: HeldoutPart) -> str:
    """Return the mean of a share, or an empty text if there is none."""
    return f"{setting.mean(metric, part):.3f}" if setting.measured else ""


def enumerate_words(items: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"; items must not be empty.

    Semicolons separate items that have commas themselves, outside brackets and numbers.

    >>> enumerate_words(["CIFG, clipped", "SI-CIFG"])
    'CIFG, clipped; and SI-CIFG'
    >>> enumerate_words(["one with 1,000", "two"])
    'one with 1,000 and two'
    """
    if len(items) == 1:
        return items[0]
    mark = ";" if any(", " in _BRACKETED.sub("", item) for item in items) else ","
    last = "; and " if mark == ";" else " and "
    return f"{mark} ".join(items[:-1]) + last + items[-1]


def number(value: float) -> str:
    """Return a level's number as on an axis and in a table."""
    return "∞" if value == math.inf else f"{value:.3g}"


def place_words(place: GridPoint) -> str:
    """Return the name of an arm at a level."""
    at = f" at {words(place.level)}" if place.level else ""
    return f"{words(place.arm)}{at}"


def seeds_text(count: int) -> str:
    """Return a number of seeds in words."""
    return "1 seed" if count == 1 else f"{count} seeds"


def capitalised(sentence: str, points: Combination) -> str:
    """Return a sentence that begins with a capital letter or with the own name of the first point.

    >>> capitalised("cifg 0.015 diverged", (Point("arm", "cifg 0.015", (), ""),))
    'cifg 0.015 diverged'
    """
    named = points and points[0].axis == _ARM and sentence.startswith(cell(points[0]))
    return sentence if named else sentence[:1].upper() + sentence[1:]
