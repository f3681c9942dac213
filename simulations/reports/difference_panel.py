"""The panel of differences between arms over rounds: each arm minus the first, seed by seed.

Curves of arms that differ by hundredths lie on each other where both fall by whole nats. Their
differences show who leads, and when that changes.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import LineStyleType

from simulations.reports.marks import GREY
from simulations.reports.ranges import leave_out_start
from simulations.reports.study_legend import line_of
from simulations.reports.study_words import values_text
from simulations.safe_text import for_figure
from simulations.studies.results import GridPoint, StudyResult
from simulations.studies.statistics import Interval, claim_interval

_FEWEST_ROUNDS = 2
"""Rounds at which two arms were evaluated, without which there is no curve."""

Curve = dict[int, Interval]
"""Differences of the mean held-out loss, by round; with too few seeds for a claim, the intervals
are infinite."""

Losses = Mapping[int, Mapping[int, float]]
"""Held-out losses by seed and round."""


def differences_over_rounds(result: StudyResult) -> dict[GridPoint, Curve]:
    """Return the differences of each arm's chosen setting to that of the first arm, by place.

    A round counts if both were evaluated after it in each seed. Places with fewer than two such
    rounds are left out, and so are those of which a seed diverged in either arm: the others alone
    would show an arm better than it is.
    """
    first, *others = result.arms
    found = {}
    for level in result.levels:
        base = _losses(result, GridPoint(level, first))
        for arm in others:
            place = GridPoint(level, arm)
            curve = curve_of(_losses(result, place), base)
            if len(curve) >= _FEWEST_ROUNDS:
                found[place] = curve
    return found


def _losses(result: StudyResult, place: GridPoint) -> Losses:
    """Return the held-out losses of trained models, by seed and round; none if a seed diverged."""
    runs = result.all_seeds(place)
    if any(one.diverged for one in runs):
        return {}
    return {
        one.trial.seed: {r.round: r.heldout["loss"] for r in one.records if r.heldout and r.round}
        for one in runs
    }


def curve_of(losses: Losses, base: Losses) -> Curve:
    """Return the differences of two settings by round, where all common seeds have both."""
    seeds = sorted(losses.keys() & base.keys())
    if not seeds:
        return {}
    rounds = set.intersection(*(losses[seed].keys() & base[seed].keys() for seed in seeds))
    return {
        number: claim_interval([losses[seed][number] - base[seed][number] for seed in seeds])
        for number in sorted(rounds)
    }


def draw_differences(axes: Axes, result: StudyResult, found: dict[GridPoint, Curve]) -> None:
    """Draw differences with a band of their 95 % interval, if it is finite."""
    styled = [(*line_of(result, place), curve) for place, curve in found.items()]
    draw_curves(axes, styled, for_figure(values_text(result.arms[0])))


def draw_curves(
    axes: Axes, curves: Sequence[tuple[str, LineStyleType, Curve]], subtracted: str
) -> None:
    """Draw differences over rounds, each with a band of its interval, if all ends are finite.

    Args:
        axes: The axes to draw on.
        curves: The colour and the style of each line, and its differences.
        subtracted: What was subtracted.
    """
    axes.axhline(0, color=GREY, lw=0.8)
    drawn: list[tuple[int, float]] = []
    for colour, style, curve in curves:
        rounds, intervals = [*curve], [*curve.values()]
        means = [interval.estimate for interval in intervals]
        axes.plot(rounds, means, color=colour, linestyle=style, marker="o", ms=3)
        low = [interval.low for interval in intervals]
        high = [interval.high for interval in intervals]
        shown = [means]
        if all(map(math.isfinite, [*low, *high])):
            axes.fill_between(rounds, low, high, color=colour, alpha=0.15, lw=0)
            shown += [low, high]
        drawn += [point for values in shown for point in zip(rounds, values, strict=True)]
    leave_out_start(axes, np.array(drawn), [0.0])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    title = f"Minus {subtracted}"
    axes.set(xlabel="round", ylabel="difference in loss (nats per token)", title=title)
