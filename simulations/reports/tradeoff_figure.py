"""The figure of a trade-off: utility against epsilon, and against the noise on the mean."""

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.reports.figures import STYLE, setting_curve, unigram_line
from simulations.studies.grid import ACCURACY
from simulations.studies.tradeoff import Tradeoff
from simulations.text import for_figure

_GAP = 0.25
"""Between the outermost level and that without noise, as a share of the other levels' span."""

_LEAST = 1e-3


def tradeoff_figure(tradeoff: Tradeoff) -> Figure:
    """Draw held-out loss and accuracy against epsilon and against the noise on the mean."""
    epsilons = [level.epsilon for level in tradeoff.levels]
    noises = [level.noise_on_mean for level in tradeoff.levels]
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
            loss, accuracy = (figure.add_subplot(2, 2, 1 + column + 2 * place) for place in (0, 1))
            for row, architecture in enumerate(tradeoff.architectures):
                settings = tradeoff.settings(architecture)
                setting_curve(loss, places, settings, row=row)
                setting_curve(accuracy, places, settings, ACCURACY, row=row, at_top=False)
            unigram_line(loss, tradeoff.summary.unigram_loss)
            loss.set(ylabel="final held-out loss (nats per token)")
            accuracy.set(ylabel="final held-out word accuracy", xlabel=name)
            for axes in (loss, accuracy):
                axes.set_xticks(places, labels)
                _set_apart(axes, places, epsilons)
        figure.axes[0].legend()
        figure.suptitle(_title(tradeoff))
    return figure


def _title(tradeoff: Tradeoff) -> str:
    privacy = tradeoff.privacy
    title = (
        f"{tradeoff.summary.corpus}: epsilon for cohorts of {privacy.cohort_size:,} from "
        f"{privacy.population:,} clients, delta {privacy.delta:.2g}"
    )
    if privacy.extrapolated:
        title += f" (cohorts of {privacy.simulated_cohort_size:,} were simulated)"
    return for_figure(title)


def epsilon_places(epsilons: Sequence[float]) -> list[float]:
    """Return places on a logarithmic axis, with infinity beyond the right end of the others.

    Much noise may cost nothing beyond delta: an epsilon of 0 is placed at ``_LEAST``.
    """
    return _places([max(epsilon, _LEAST) for epsilon in epsilons], math.inf, 1)


def noise_places(noises: Sequence[float]) -> list[float]:
    """Return places on a logarithmic axis, with 0 beyond the left end of the others."""
    return _places(noises, 0.0, -1)


def number(value: float) -> str:
    """Return a level's number as it stands on an axis and in a table."""
    return "∞" if value == math.inf else f"{value:.3g}"


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
