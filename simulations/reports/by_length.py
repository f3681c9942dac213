"""The part of a study's report on the lengths of ``task.grid``, of tasks that make their examples.

Its numbers are the task's score of the final models on new examples of each length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from server.runs.summary import Summary
from simulations.reports.figures import STYLE
from simulations.reports.study_legend import arm_colour, legend_columns
from simulations.reports.study_words import (
    enumerate_words,
    legend_title,
    mean_of_seeds_text,
    place_words,
    values_text,
    words,
)
from simulations.safe_text import for_figure
from simulations.studies.results import GridPoint, StudyResult
from simulations.studies.study import Combination

SOLVED = 0.95
"""Share of right answers from which a length counts as solved."""
_MARKS = "os^vDPX*"


@dataclass(frozen=True)
class LengthsPart:
    """A table, a figure and sentences on scores over lengths."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    figure: Figure
    caption: str
    verdict: str


def by_length(result: StudyResult) -> LengthsPart | None:
    """Return the part on lengths; None if the runs were evaluated at none."""
    lengths = list(dict.fromkeys(n for one in result.results for n in _scores(result, one.summary)))
    if not lengths:
        return None
    task = result.task
    score, what = task.shown[task.score], task.generation.what if task.generation else "length"
    rows = [
        [
            place_words(place),
            *(
                mean_of_seeds_text(scores_at(result, place, n), len(result.all_seeds(place)))
                for n in lengths
            ),
        ]
        for place in result.places
    ]
    return LengthsPart(
        title=f"{score.capitalize()} on new examples of each length ({what})",
        header=["", *lengths],
        rows=rows,
        figure=_figure(result, lengths, f"{score} on new examples", what),
        caption=f"{score.capitalize()} of the final models on new examples of each length ({what})."
        " Bands reach from the worst to the best seed that did not diverge.",
        verdict=_verdict(result, lengths, score),
    )


def scores_at(result: StudyResult, place: GridPoint, length: str) -> list[float]:
    """Return the score of each seed of a place's chosen setting that did not diverge."""
    found = (_scores(result, one.summary).get(length) for one in result.all_seeds(place))
    return [score for score in found if score is not None]


def _scores(result: StudyResult, summary: Summary) -> Mapping[str, float | None]:
    return summary.by_length.get(result.task.score, {})


def _figure(result: StudyResult, lengths: Sequence[str], ylabel: str, what: str) -> Figure:
    """Draw the scores over the lengths, a panel for each level."""
    with mpl.rc_context(STYLE):
        panels = len(result.levels)
        across = min(panels, 2)
        down = -(-panels // across)
        size = (5.2 * across, 3.6 * down + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        every = figure.subplots(down, across, squeeze=False).flatten()
        for axes, level in zip(every, result.levels, strict=False):
            _panel(axes, result, level, lengths)
            axes.set(title=for_figure(words(level)) if level else "", xlabel=what, ylabel=ylabel)
        for axes in every[panels:]:
            axes.remove()
        handles, labels = every[0].get_legend_handles_labels()
        columns, title = legend_columns(labels), legend_title(result.arms)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title)
    return figure


def _panel(axes: Axes, result: StudyResult, level: Combination, lengths: Sequence[str]) -> None:
    for number, arm in enumerate(result.arms):
        place, colour = GridPoint(level, arm), arm_colour(result, arm)
        known = [(x, s) for x, n in enumerate(lengths) if (s := scores_at(result, place, n))]
        places = [x for x, _ in known]
        means, low, high = ([one(s) for _, s in known] for one in (fmean, min, max))
        mark = _MARKS[number % len(_MARKS)]
        axes.plot(
            places, means, color=colour, marker=mark, ms=4, label=for_figure(values_text(arm))
        )
        axes.fill_between(places, low, high, facecolor=(colour, 0.12), edgecolor=(colour, 0.5))
    axes.set_xticks(range(len(lengths)), lengths)
    axes.minorticks_off()
    axes.set_ylim(-0.04, 1.04)


def _verdict(result: StudyResult, lengths: Sequence[str], score: str) -> str:
    """Name the places that solve most of the lengths, counted from the first.

    Those with a seed that diverged are not among them, but named with the number of such seeds.
    """
    diverged = {
        place: f"{place_words(place)} ({lost} of {len(runs)} seeds)"
        for place in result.places
        for runs in [result.all_seeds(place)]
        if (lost := sum(one.diverged for one in runs))
    }
    spoiled = ""
    if diverged:
        spoiled = f" Left out, because runs diverged: {enumerate_words([*diverged.values()])}."
    reach = {
        place: _solved(result, place, lengths) for place in result.places if place not in diverged
    }
    furthest = max(reach.values(), default=0)
    if not furthest:
        return f"No {score} of {SOLVED} or more at length {lengths[0]}.{spoiled}"
    best = [place_words(place) for place, solved in reach.items() if solved == furthest]
    ends = "all lengths" if furthest == len(lengths) else f"lengths up to {lengths[furthest - 1]}"
    return f"{score.capitalize()} of {SOLVED} or more at {ends}: {enumerate_words(best)}.{spoiled}"


def _solved(result: StudyResult, place: GridPoint, lengths: Sequence[str]) -> int:
    """Return how many lengths a place solves before the first that it does not."""
    for number, length in enumerate(lengths):
        scores = scores_at(result, place, length)
        if not scores or fmean(scores) < SOLVED:
            return number
    return len(lengths)
