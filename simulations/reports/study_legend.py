"""Colours, line styles and the common legend of a study's figures.

A line's colour is its arm's and its style its level's; in a study of one arm the colour is the
level's. The legend names each once, by the values alone, below the keys that they are values of.
"""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from fedsi.models.positions.table import ENCODINGS
from simulations.reports.figures import colour_of
from simulations.reports.marks import GREY
from simulations.reports.study_words import legend_title, values_text, words
from simulations.safe_text import for_figure
from simulations.studies.results import GridPoint, StudyResult
from simulations.studies.study import Combination

OTHERS = "other settings"
"""Label of curves of settings that were not chosen."""

_PALETTE = ("#1f5fa8", "#c8500a", "#0a7f6e", "#7a4fb0", "#b8860b", "#c2418a", "#333333")
_STYLES: tuple[LineStyleType, ...] = ("-", "--", "-.", ":")
_CHARACTERS = 100
"""Characters of labels side by side in a legend that is as wide as the figure."""


def arm_colour(result: StudyResult, arm: Combination) -> str:
    """Return the colour of an arm's lines: that of an architecture or a position encoding."""
    for point in arm:
        if point.axis == "model.architecture" and len(arm) == 1:
            return colour_of(str(point.value))
        if point.axis == "model.positions" and len(arm) == 1:
            return ENCODINGS[str(point.value)].colour
    return _PALETTE[result.arms.index(arm) % len(_PALETTE)]


def line_of(result: StudyResult, place: GridPoint) -> tuple[str, LineStyleType]:
    """Return the colour and the style of the line of an arm at a level."""
    level = result.levels.index(place.level)
    if len(result.arms) == 1 and len(result.levels) > 1:
        return _PALETTE[level % len(_PALETTE)], _STYLES[level // len(_PALETTE) % len(_STYLES)]
    return arm_colour(result, place.arm), _STYLES[level % len(_STYLES)]


def study_legend(figure: Figure, result: StudyResult, *, levels: bool = True, below: bool = True,
                 others: bool = False) -> None:  # fmt: skip
    """Draw the common legend of a figure.

    Args:
        figure: The figure, with everything else drawn.
        result: The study's results.
        levels: Whether its lines differ by level.
        below: Whether it stands below the panels, and not right of them.
        others: Whether there are curves of settings that were not chosen.
    """
    by_arm, by_level = len(result.arms) > 1, levels and len(result.levels) > 1
    handles: list[Line2D] = []
    keys: dict[str, str | None] = {}
    if by_arm:
        handles += [_line(arm_colour(result, arm), "-", values_text(arm)) for arm in result.arms]
        keys["colour"] = legend_title(result.arms)
    if by_level:
        for level in result.levels:
            colour, style = line_of(result, GridPoint(level, result.arms[0]))
            handles.append(_line(GREY if by_arm else colour, style, values_text(level)))
        keys["line"] = legend_title(result.levels)
    if not handles:
        handles.append(_line(arm_colour(result, result.arms[0]), "-", _only_name(result)))
    if others:
        handles.append(Line2D([], [], color=GREY, alpha=0.4, lw=0.8, label=OTHERS))
    columns = legend_columns([str(handle.get_label()) for handle in handles]) if below else 1
    figure.legend(
        handles=handles,
        title=_title(keys),
        loc="outside lower center" if below else "outside right upper",
        ncols=columns,
    )


def legend_columns(labels: Sequence[str]) -> int:
    """Return the number of columns, up to 4, in which labels are not wider than the figure."""
    longest = max(map(len, labels), default=1)
    return max(1, min(4, _CHARACTERS // longest))


def _line(colour: str, style: LineStyleType, label: str) -> Line2D:
    return Line2D([], [], color=colour, linestyle=style, marker="o", ms=4, label=for_figure(label))


def _only_name(result: StudyResult) -> str:
    """Return the name of the only line: its arm, or the chosen setting of the only place."""
    chosen = result.chosen(result.places[0])
    if len(result.places) > 1 or not result.chooses or chosen is None:
        return words(result.arms[0])
    return f"chosen: {words(chosen.points)}"


def _title(keys: Mapping[str, str | None]) -> str | None:
    """Return the title of a legend whose colours and lines are values of these keys."""
    if len(keys) < 2:
        return next(iter(keys.values()), None)
    return "; ".join(f"{what}: {key}" for what, key in keys.items() if key) or None
