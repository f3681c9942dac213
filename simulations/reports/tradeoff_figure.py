"""The figure of a trade-off: utility against epsilon, and against the noise on the mean."""

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.reports.figures import STYLE, ngram_lines
from simulations.reports.study_figure import setting_line
from simulations.reports.study_words import number
from simulations.safe_text import for_figure
from simulations.studies.results import GridPoint, Setting, StudyResult
from simulations.studies.study import Combination

_GAP = 0.25
"""Gap between the outermost level and the one without noise, as a share of the other levels'
span."""

_LEAST = 1e-3


def tradeoff_figure(result: StudyResult) -> Figure:
    """Draw held-out loss and score against epsilon and against the noise on the mean."""
    levels = [result.privacy_levels[level] for level in result.levels]
    epsilons = [level.epsilon for level in levels]
    noises = [level.noise_on_mean for level in levels]
    columns = (
        (epsilon_places(epsilons), [number(e) for e in epsilons], "epsilon (left: more private)"),
        (
            noise_places(noises),
            [number(n) for n in noises],
            "noise on the mean (right: more private)",
        ),
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 7), layout="constrained")
        for column, (places, labels, name) in enumerate(columns):
            loss, score = (figure.add_subplot(2, 2, 1 + column + 2 * place) for place in (0, 1))
            for arm in result.arms:
                chosen = [result.chosen(GridPoint(level, arm)) or _spoiled(result, level, arm)
                          for level in result.levels]  # fmt: skip
                placed = list(zip(places, chosen, strict=True))
                setting_line(loss, result, arm, placed)
                setting_line(score, result, arm, placed, result.task.score)
            ngram_lines(loss, result.baselines, result.reported_clients)
            loss.set(ylabel="final held-out loss (nats per token)")
            score.set(ylabel=f"final held-out {result.task.title}", xlabel=name)
            for axes in (loss, score):
                axes.set_xticks(places, labels)
                _set_apart(axes, places, epsilons)
        figure.axes[0].legend()
        figure.suptitle(_title(result))
    return figure


def _spoiled(result: StudyResult, level: Combination, arm: Combination) -> Setting | None:
    """Return a diverged setting, for its cross, if none can be chosen."""
    settings = result.settings(GridPoint(level, arm))
    return next((setting for setting in settings if setting.diverged), None)


def _title(result: StudyResult) -> str:
    privacy = result.summary.privacy
    if privacy is None:
        return for_figure(result.summary.corpus)
    title = (
        f"{result.summary.corpus}: epsilon for cohorts of {privacy.cohort_size:,} from "
        f"{privacy.population:,} clients, delta {privacy.delta:.2g}"
    )
    if privacy.extrapolated:
        title += f" (cohorts of {privacy.simulated_cohort_size:,} were simulated)"
    return for_figure(title)


def epsilon_places(epsilons: Sequence[float]) -> list[float]:
    """Return places on a logarithmic axis, with infinity beyond the right end of the others.

    With much noise epsilon may be 0, which is placed at ``_LEAST``.
    """
    return _places([max(epsilon, _LEAST) for epsilon in epsilons], math.inf, 1)


def noise_places(noises: Sequence[float]) -> list[float]:
    """Return places on a logarithmic axis, with 0 beyond the left end of the others."""
    return _places(noises, 0.0, -1)


def _places(values: Sequence[float], outside: float, side: int) -> list[float]:
    logs = [math.log10(value) for value in values if value != outside]
    if not logs:
        return [0.0 for _ in values]
    outermost = side * max(side * log for log in logs)
    beyond = outermost + side * max(_GAP * (max(logs) - min(logs)), 0.1)
    return [beyond if value == outside else math.log10(value) for value in values]


def _set_apart(axes: Axes, places: Sequence[float], epsilons: Sequence[float]) -> None:
    """Draw a line between the level without noise, which is not to scale, and the others."""
    without = [x for x, epsilon in zip(places, epsilons, strict=True) if epsilon == math.inf]
    others = [x for x in places if x not in without]
    if without and others:
        nearest = min(others, key=lambda x: abs(x - without[0]))
        axes.axvline((nearest + without[0]) / 2, color="#bbbbbb", linestyle="--", linewidth=1)
