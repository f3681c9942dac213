"""The figure of a study: losses over rounds, and over the varied axes."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simulations.reports.difference_panel import (
    Curve,
    differences_over_rounds,
    draw_differences,
)
from simulations.reports.figures import STYLE
from simulations.reports.heat_map import heat_map, mapped_axes
from simulations.reports.marks import GREY, diverged_strips, ngram_lines, ngram_losses
from simulations.reports.ranges import leave_out_start
from simulations.reports.study_legend import arm_colour, line_of, study_legend
from simulations.reports.study_words import axis_words, cell, words
from simulations.safe_text import for_figure
from simulations.studies.axes import Axis
from simulations.studies.results import GridPoint, Setting, StudyResult
from simulations.studies.statistics import FEWEST_SEEDS, t_interval
from simulations.studies.study import Combination

_MOST_PANELS = 2
"""Number of axes with a panel."""
_MOST_CURVES = 8


def study_figure(result: StudyResult) -> Figure:
    """Draw held-out loss over rounds, and over what was varied.

    A whole grid over two tuned keys is a map; otherwise the first axes that are not compared have a
    panel each. An axis with a single value has none, because the last rounds show the same. The
    differences between the arms over the rounds have the second panel, if there are any to show.
    """
    if mapped := mapped_axes(result):
        return _with_map(result, *mapped)
    panels, apart = panel_axes(result), differences_shown(result)
    count = 1 + len(panels) + bool(apart)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.8 * count, 4.4), layout="constrained")
        over_rounds, *others = figure.subplots(1, count, squeeze=False)[0]
        _rounds(over_rounds, result)
        if apart:
            draw_differences(others.pop(0), result, apart)
        for axes, name in zip(others, panels, strict=True):
            diverged = _over_axis(axes, result, name)
            ngram_lines(axes, ngram_losses(result.baselines, result.reported_clients))
            diverged_strips(axes, diverged)
        study_legend(figure, result)
    return figure


def _with_map(result: StudyResult, across: Axis, up: Axis) -> Figure:
    """Draw the rounds of all settings, and the map of their final losses."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 4.4), layout="constrained")
        over_rounds, of_cells = figure.subplots(1, 2)
        _other_settings(over_rounds, result)
        _rounds(over_rounds, result)
        heat_map(of_cells, result, across, up)
        study_legend(figure, result, others=True)
    return figure


def _rounds(axes: Axes, result: StudyResult) -> None:
    """Draw the losses over rounds, with the n-gram models' lines and the diverged runs."""
    diverged, lines = _curves(axes, result), ngram_losses(result.baselines)
    points = np.concatenate([np.zeros((0, 2)), *(line.get_xydata() for line in axes.get_lines())])
    if len(points):
        leave_out_start(axes, points, [points[:, 1].min()], [*lines.values()])
    ngram_lines(axes, lines)
    diverged_strips(axes, diverged)


def _other_settings(axes: Axes, result: StudyResult) -> None:
    """Draw thin curves of the settings of the only place that were not chosen, a seed each."""
    (place,) = result.places
    chosen = result.chosen(place)
    for setting in result.settings(place):
        if setting.results and setting.measured and setting != chosen:
            evaluated = [(r.round, r.heldout["loss"]) for r in setting.results[0].records
                         if r.heldout]  # fmt: skip
            axes.plot(*zip(*evaluated, strict=True), color=GREY, alpha=0.4, lw=0.8)


def panel_axes(result: StudyResult) -> list[str]:
    """Return the names of the axes with a panel of their own."""
    return [name for name in _varied(result) if name not in result.study.compare][:_MOST_PANELS]


def differences_shown(result: StudyResult) -> dict[GridPoint, Curve]:
    """Return the differences between arms over rounds that have a panel.

    Beside axes with panels of their own they have one only with intervals.
    """
    found = differences_over_rounds(result)
    certain = all(math.isfinite(one.low) for curve in found.values() for one in curve.values())
    return found if certain or not panel_axes(result) else {}


def _varied(result: StudyResult) -> list[str]:
    """Return the names of the axes with several values."""
    return [
        axis.called
        for axis in result.study.axes
        if len({_value(points, axis.called) for points in result.combinations}) > 1
    ]


def setting_line(
    axes: Axes,
    result: StudyResult,
    arm: Combination,
    placed: Sequence[tuple[float, Setting | None]],
    metric: str = "loss",
) -> list[float]:
    """Draw an arm's settings: means and 95 % intervals.

    Args:
        axes: The axes to draw on.
        result: The study's results.
        arm: The arm.
        placed: Places on the x axis and settings, None for missing ones.
        metric: The metric to draw.

    Returns:
        The places where a seed diverged, for ``diverged_strips``.
    """
    stable = [(x, setting) for x, setting in placed if setting and setting.measured]
    values = [setting.values(metric, result.part) for _, setting in stable]
    intervals = [t_interval(one) for one in values]
    axes.errorbar(
        [x for x, _ in stable],
        [interval.estimate for interval in intervals],
        yerr=[
            interval.high - interval.estimate if len(one) >= FEWEST_SEEDS else 0.0
            for interval, one in zip(intervals, values, strict=True)
        ],
        color=arm_colour(result, arm),
        marker="o",
        capsize=3,
    )
    return [x for x, setting in placed if setting and setting.diverged]


def _curves(axes: Axes, result: StudyResult) -> dict[str, list[float]]:
    """Draw the rounds of each place's chosen setting, or of its first if none has a loss.

    Args:
        axes: The axes to draw on.
        result: The study's results.

    Returns:
        The last rounds of the runs that diverged, by their arm's colour.
    """
    diverged: dict[str, list[float]] = {}
    for place in result.places[:_MOST_CURVES]:
        colour, style = line_of(result, place)
        for one in result.all_seeds(place):
            if one.diverged:
                diverged.setdefault(colour, []).append(one.summary.rounds)
            else:
                evaluated = [(r.round, r.heldout["loss"]) for r in one.records if r.heldout]
                axes.plot(
                    *zip(*evaluated, strict=True),
                    color=colour,
                    linestyle=style,
                    marker="o",
                    ms=3,
                )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    tuned = ", chosen settings" if result.chooses else ""
    axes.set(xlabel="round", ylabel="held-out loss (nats per token)", title=f"Rounds{tuned}")
    return diverged


def _over_axis(axes: Axes, result: StudyResult, name: str) -> dict[str, list[float]]:
    """Draw the loss over an axis, at the best values of the tuned axes and the first of the levels.

    It is the final one, or with halving that after the first stage, which all settings have run.

    Returns:
        The places where a seed diverged, by the arm's colour.
    """
    early = f"after {result.study.first_rounds} rounds"
    when = "Final loss" if result.of_equal_rounds is result else f"Loss {early}"
    result = result.of_equal_rounds
    values = list(dict.fromkeys(_value(points, name) for points in result.combinations))
    numbers = [float(v) if isinstance(v, int | float) else math.nan for v in values]
    log = all(math.isfinite(n) and n > 0 for n in numbers) and max(numbers) >= 3 * min(numbers)
    places = dict(zip(values, numbers if log else map(float, range(len(values))), strict=True))
    diverged = {}
    for arm in result.arms:
        placed = [(places[v], _best_at(result, arm, name, v)) for v in values]
        placed.sort(key=lambda one: one[0])
        diverged[arm_colour(result, arm)] = setting_line(axes, result, arm, placed)
    if log:
        axes.set_xscale("log")
    shown = values if len(values) <= _MOST_CURVES else values[:: len(values) // _MOST_CURVES + 1]
    axes.set_xticks([places[v] for v in shown], [_text(result, name, v) for v in shown])
    axes.minorticks_off()
    axes.set(xlabel=name if "." in name else axis_words(name))
    varied = _varied(result)
    held = [point for point in result.levels[0] if point.axis != name and point.axis in varied]
    at = f"\nat {for_figure(words(tuple(held)))}" if held else ""
    axes.set_title(f"{when} by {axis_words(name)}{at}")
    return diverged


def _best_at(result: StudyResult, arm: Combination, name: str, value: object) -> Setting | None:
    """Return the best setting of an arm at an axis value, at the first values of other levels."""
    first = {point.axis: point.value for point in result.levels[0]} | {name: value}
    settings = [
        setting
        for level in result.levels
        if all(point.value == first[point.axis] for point in level)
        for setting in result.settings(GridPoint(level, arm))
        if _value(setting.points, name) == value and setting.results
    ]
    return min(settings, key=result.cost, default=None)


def _value(points: Combination, name: str) -> object:
    return next(point.value for point in points if point.axis == name)


def _text(result: StudyResult, name: str, value: object) -> str:
    point = next(p for c in result.combinations for p in c if p.axis == name and p.value == value)
    return for_figure(cell(point))
