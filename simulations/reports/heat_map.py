"""The map of a sweep over two keys: a cell for each pair of values, with its final loss."""

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from simulations.reports.study_words import cell
from simulations.safe_text import for_figure
from simulations.studies.axes import Axis, Point
from simulations.studies.results import Setting, StudyResult

MOST_VALUES = 10
"""Most values of a key in a map; more would make its numbers too small to read."""
_COLOURS = "YlGnBu_r"
_USELESS = "#b4b4b4"
"""Colour of what is not better than the unigram model, has diverged or has not finished."""
_DARK, _LIGHT = "#1a1a1a", "#fafafa"
"""Colours of numbers on light and on dark cells; a page's theme leaves both as they are."""
_MARK = "#d01c1c"


def mapped_axes(result: StudyResult) -> tuple[Axis, Axis] | None:
    """Return the two axes of a study that is a map: a whole grid over two tuned keys."""
    axes = [axis for axis in result.study.axes if axis.called in result.study.tune]
    if len(axes) != 2 or len(result.places) > 1 or result.study.draws is not None:
        return None
    if not all(2 <= len(axis.values) <= MOST_VALUES for axis in axes):
        return None
    return axes[0], axes[1]


def heat_map(axes: Axes, result: StudyResult, across: Axis, up: Axis) -> None:
    """Draw the final loss of the reported clients for each pair of values.

    Better cells are darker; the chosen one has a frame. Grey cells have no use: they are not better
    than the unigram model, or a seed diverged, or no run finished.

    Args:
        axes: The axes to draw on.
        result: The study's results, with one place.
        across: The key on the x axis.
        up: The key on the y axis.
    """
    place = result.places[0]
    settings = {_values(one, across, up): one for one in result.settings(place)}
    columns, rows = _ordered(across), _ordered(up)
    unigram = result.baseline("unigram")
    top = math.inf if unigram is None else unigram
    losses = [one.mean("loss", result.part) for one in settings.values()]
    useful = [loss for loss in losses if loss < top]
    low, high = (min(useful), max(useful)) if useful else (0.0, 1.0)
    # The lightest colours are left out, so that all cells differ from grey and from a light page.
    shade, palette = Normalize(low, high + (high - low or 1.0) / 4), mpl.colormaps[_COLOURS]
    chosen = result.chosen(place)
    for x, column in enumerate(columns):
        for y, row in enumerate(rows):
            setting = settings[column.value, row.value]
            loss = setting.mean("loss", result.part)
            colour = palette(shade(loss)) if loss < top else mpl.colors.to_rgba(_USELESS)
            axes.add_patch(Rectangle((x - 0.49, y - 0.49), 0.98, 0.98, fc=colour, lw=0))
            dark = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] < 0.5
            axes.text(
                x,
                y,
                _text(setting, loss),
                color=_LIGHT if dark else _DARK,
                ha="center",
                va="center",
                fontsize=9 if len(columns) <= 6 else 7,
            )
            if chosen and setting.points == chosen.points:
                axes.add_patch(
                    Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, ec=_MARK, lw=2.5)
                )
    axes.set_xticks(range(len(columns)), [for_figure(cell(one)) for one in columns])
    axes.set_yticks(range(len(rows)), [for_figure(cell(one)) for one in rows])
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    clients = "test clients" if result.part == "test" else "evaluated clients"
    axes.set(xlabel=across.called, ylabel=up.called)
    axes.set_title(f"Final loss of {clients}; framed: chosen")


def _values(setting: Setting, across: Axis, up: Axis) -> tuple[object, object]:
    found = {point.axis: point.value for point in setting.points}
    return found[across.called], found[up.called]


def _ordered(axis: Axis) -> Sequence[Point]:
    """Return an axis's points: numbers ascending, others in the study's order."""
    points = axis.points()
    if all(isinstance(p.value, int | float) and not isinstance(p.value, bool) for p in points):
        return sorted(points, key=lambda point: float(point.value))
    return points


def _text(setting: Setting, loss: float) -> str:
    if not setting.results:
        return "not\nfinished"
    if not setting.measured:
        return "diverged"
    stopped = setting.results[0].trial.rounds
    return f"{loss:.3f}" if stopped is None else f"{loss:.3f}\n({stopped} rounds)"
