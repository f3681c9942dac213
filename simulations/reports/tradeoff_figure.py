"""The figure of a trade-off: loss and score against epsilon, with the noise of each level."""

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.reports.figures import STYLE
from simulations.reports.marks import diverged_strips, ngram_lines, ngram_losses
from simulations.reports.study_figure import setting_line
from simulations.reports.study_legend import arm_colour, study_legend
from simulations.reports.study_privacy import reported_privacy
from simulations.reports.study_words import number
from simulations.safe_text import for_figure
from simulations.studies.results import GridPoint, Setting, StudyResult
from simulations.studies.study import Combination

_GAP = 0.25
"""Gap between the outermost level and the one without noise, as a share of the other levels'
span."""

_LEAST = 1e-3
_EQUAL = 1e-3
"""Relative difference of epsilons that are calibrated to the same target."""


def tradeoff_figure(result: StudyResult) -> Figure:
    """Draw held-out loss and score against epsilon, and the noise on the mean below it."""
    first = result.arms[0]
    levels = [result.privacy_levels[GridPoint(level, first)] for level in result.levels]
    epsilons = [level.epsilon for level in levels]
    places = epsilon_places(epsilons)
    ticks = [number(one.epsilon) for one in levels]
    label = "epsilon"
    if same_noise(result):
        ticks = [f"{number(one.epsilon)}\n({number(one.noise_on_mean)})" for one in levels]
        label += " (noise on the mean)"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        loss, score = figure.subplots(1, 2)
        loss.set(ylabel="held-out loss (nats per token)", title="Final loss")
        title = f"Final {result.task.title.lower()}"
        score.set(ylabel=f"share of {result.task.unit}", title=title)
        for axes, metric in ((loss, "loss"), (score, result.task.score)):
            diverged = {}
            for arm in result.arms:
                chosen = [result.chosen(GridPoint(level, arm)) or _spoiled(result, level, arm)
                          for level in result.levels]  # fmt: skip
                placed = list(zip(places, chosen, strict=True))
                diverged[arm_colour(result, arm)] = setting_line(axes, result, arm, placed, metric)
            if axes is score:
                axes.set_ylim(bottom=0)
            else:
                ngram_lines(loss, ngram_losses(result.baselines, result.reported_clients))
            diverged_strips(axes, diverged, above=axes is loss)
            axes.set_xticks(places, ticks)
            axes.set_xlabel(f"{label}; left: more private")
            _set_apart(axes, places, epsilons)
        study_legend(figure, result, levels=False)
        figure.suptitle(_title(result))
    return figure


def at_equal_epsilon(result: StudyResult) -> bool:
    """Whether levels are of noise, and all arms have the same epsilon at each of them."""
    costs = result.privacy_levels
    return len(costs) == len(result.places) > 0 and all(
        math.isclose(
            costs[place].epsilon,
            costs[GridPoint(place.level, result.arms[0])].epsilon,
            rel_tol=_EQUAL,
        )
        for place in costs
    )


def same_noise(result: StudyResult) -> bool:
    """Whether all arms have the same noise on the mean at each level."""
    costs = result.privacy_levels
    return all(costs[place] == costs[GridPoint(place.level, result.arms[0])] for place in costs)


def _spoiled(result: StudyResult, level: Combination, arm: Combination) -> Setting | None:
    """Return a diverged setting, for its mark, if none can be chosen."""
    settings = result.settings(GridPoint(level, arm))
    return next((setting for setting in settings if setting.diverged), None)


def _title(result: StudyResult) -> str:
    reported = list(reported_privacy(result).values())
    if not reported:
        return for_figure(result.summary.corpus)
    privacy = reported[0]
    cohorts = " or ".join(f"{size:,}" for size in sorted({one.cohort_size for one in reported}))
    title = (
        f"{result.summary.corpus}: epsilon for cohorts of {cohorts} from "
        f"{privacy.population:,} clients, delta {privacy.delta:.2g}"
    )
    if privacy.extrapolated:
        title += f" (cohorts of {privacy.simulated_cohort_size:,} were simulated)"
    return for_figure(title)


def epsilon_places(epsilons: Sequence[float]) -> list[float]:
    """Return places on a logarithmic axis, with infinity beyond the right end of the others.

    With much noise epsilon may be 0, which is placed at ``_LEAST``.
    """
    values = [max(epsilon, _LEAST) for epsilon in epsilons]
    logs = [math.log10(value) for value in values if value != math.inf]
    if not logs:
        return [0.0 for _ in values]
    beyond = max(logs) + max(_GAP * (max(logs) - min(logs)), 0.1)
    return [beyond if value == math.inf else math.log10(value) for value in values]


def _set_apart(axes: Axes, places: Sequence[float], epsilons: Sequence[float]) -> None:
    """Draw a line between the level without noise, which is not to scale, and the others."""
    without = [x for x, epsilon in zip(places, epsilons, strict=True) if epsilon == math.inf]
    others = [x for x in places if x not in without]
    if without and others:
        nearest = min(others, key=lambda x: abs(x - without[0]))
        axes.axvline((nearest + without[0]) / 2, color="#bbbbbb", linestyle="--", linewidth=1)
