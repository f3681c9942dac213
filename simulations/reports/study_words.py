"""Names of a study's places, settings and gaps in sentences and tables."""

import math
from collections.abc import Sequence

from fedsi.models.positions.table import ENCODINGS
from simulations.reports.figures import label
from simulations.studies.axes import Point
from simulations.studies.results import HeldoutPart, Setting
from simulations.studies.statistics import FEWEST_SEEDS, Interval, t_interval
from simulations.studies.study import Combination

NO_RUN = "not finished"
"""Text in tables if no run of a setting finished."""


def point_words(point: Point) -> str:
    """Return a point's text in a sentence."""
    if point.axis == "model.architecture":
        return label(str(point.value))
    if point.axis == "model.positions":
        return ENCODINGS[str(point.value)].label
    return f"{axis_words(point.axis)} {point.text}"


def cell(point: Point) -> str:
    """Return a point's text in a table below the name of its axis."""
    words = point_words(point)
    return words.removeprefix(f"{axis_words(point.axis)} ")


def axis_words(name: str) -> str:
    """Return an axis's name in a table's header."""
    named = {"target_epsilon": "epsilon", "client.learning_rate": "client lr"}
    named |= {"server.learning_rate": "server lr", "model.architecture": "architecture"}
    return named.get(name, name.replace("_", " ") if "." not in name else name)


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


def share_text(setting: Setting, metric: str, part: HeldoutPart) -> str:
    """Return the mean of a share, or an empty text if there is none."""
    return f"{setting.mean(metric, part):.3f}" if setting.measured else ""


def enumerate_words(items: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"; items must not be empty."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def number(value: float) -> str:
    """Return a level's number as on an axis and in a table."""
    return "∞" if value == math.inf else f"{value:.3g}"
