"""Figures. They are drawn without pyplot, so that no window system or global state is touched."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fedsi.files import write_atomically
from fedsi.models.table import architecture
from fedsi.tasks.task import Task
from server.rounds import RoundRecord
from server.runs.summary import PrivacySummary, Summary
from simulations.studies.compare import Comparison
from simulations.studies.grid import Setting
from simulations.text import for_figure


def label(name: str) -> str:
    """Return what tables and pages call an architecture; a user's own by its import path."""
    return architecture(name).label


def colour_of(name: str) -> str:
    """Return the colour of an architecture's lines."""
    return architecture(name).colour


_GREY = "#666666"
STYLE: Any = {
    "svg.hashsalt": "fedsi",
    "svg.fonttype": "path",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
}


def svg(figure: Figure) -> str:
    """Return a figure as SVG text; the same figure gives the same text."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as .png and .svg.

    Args:
        figure: The figure.
        path: Where, without suffix.
    """
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path.with_suffix(".png"), buffer.getvalue())
    write_atomically(path.with_suffix(".svg"), svg(figure).encode())


def run_curves(records: Sequence[RoundRecord], summary: Summary, task: Task) -> Figure:
    """Draw a run's losses, its held-out accuracy, and epsilon so far if it is finite."""
    claim = summary.privacy if summary.privacy and summary.privacy.epsilon is not None else None
    panels = 3 if claim else 2
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5 * panels, 3.6), layout="constrained")
        losses, accuracy, *others = figure.subplots(1, panels, sharex=True)
        losses.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        colour = colour_of(summary.architecture)
        rounds = [r.round for r in records]
        evaluated = [r for r in records if r.heldout]
        losses.plot(
            rounds, [r.train_loss for r in records], color=colour, alpha=0.35, label="cohort"
        )
        _curve(losses, evaluated, "loss", colour, "held-out clients")
        unigram_line(losses, summary.unigram_loss)
        losses.set(xlabel="round", ylabel="loss (nats per token)", title="Loss")
        losses.legend()
        for metric, called in task.curves.items():
            _curve(accuracy, evaluated, metric, colour if metric == task.score else None, called)
        accuracy.set(xlabel="round", ylabel=f"share of {task.unit}", title=f"Held-out {task.title}")
        accuracy.set_ylim(bottom=0)
        accuracy.legend()
        if claim:
            _epsilon_so_far(others[0], records, claim)
        name = label(summary.architecture)
        title = f"{name} on {summary.corpus}, {summary.parameters:,} parameters"
        figure.suptitle(for_figure(title))
    return figure


def _epsilon_so_far(axes: Axes, records: Sequence[RoundRecord], claim: PrivacySummary) -> None:
    axes.step([r.round for r in records], [r.epsilon for r in records], where="post", color=_GREY)
    axes.set_ylim(bottom=0)
    mark = "extrapolated" if claim.extrapolated else claim.mechanism
    axes.set(
        xlabel="round",
        ylabel=f"epsilon at delta = {claim.delta:.2g}",
        title=f"Epsilon so far ({mark})",
    )


def comparison_figure(comparison: Comparison) -> Figure:
    """Draw held-out loss against rounds at the best learning rates, and against learning rate."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4), layout="constrained")
        over_rounds, over_rates = figure.subplots(1, 2)
        for row, architecture in enumerate(comparison.architectures):
            best = comparison.best(architecture)
            if best:
                _best_curves(over_rounds, best)
            settings = comparison.settings(architecture)
            setting_curve(over_rates, comparison.values, settings, row=row)
        over_rounds.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        summary = comparison.results[0].summary
        for axes in (over_rounds, over_rates):
            unigram_line(axes, summary.unigram_loss)
        over_rounds.set(
            xlabel="round",
            ylabel="held-out loss (nats per token)",
            title="At each one's best client learning rate",
        )
        over_rates.set(
            xlabel="client learning rate",
            ylabel="final held-out loss (nats per token)",
            title="At every client learning rate",
        )
        over_rates.set_xscale("log")
        over_rates.set_xticks(comparison.values)
        over_rates.set_xticklabels([f"{rate:g}" for rate in comparison.values])
        over_rates.minorticks_off()
        for axes in (over_rounds, over_rates):
            axes.legend()
    return figure


def clients_histogram(words_per_client: NDArray[np.integer[Any]]) -> Figure:
    """Draw how many words clients have, and mark the median and the 90 % quantile.

    Args:
        words_per_client: Words of each client, at least one; not empty.
    """
    median, most = np.quantile(words_per_client, (0.5, 0.9))
    # From the power of two at or below the smallest client to one above the largest.
    lowest = int(np.log2(words_per_client.min()))
    highest = int(np.log2(words_per_client.max())) + 1
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        heights, _, _ = axes.hist(
            words_per_client,
            bins=[2.0**power for power in range(lowest, highest + 1)],
            color="#b8c4ce",
            edgecolor="white",
        )
        for value, style, label in ((median, "-", "median"), (most, "--", "90 % of clients below")):
            axes.axvline(value, color=_GREY, linestyle=style, label=f"{label}: {value:,.0f}")
        axes.set_ylim(top=1.3 * np.max(heights))  # the legend stands above the bars
        axes.set_xscale("log")
        axes.set_axisbelow(True)
        axes.set(
            xlabel="words per client (from one power of two to the next)",
            ylabel="clients",
            title=f"Words of {len(words_per_client):,} clients",
        )
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend(frameon=True, framealpha=1, edgecolor="none")
    return figure


def _best_curves(axes: Axes, best: Setting) -> None:
    colour = colour_of(best.architecture)
    name: str | None = for_figure(f"{label(best.architecture)}, client lr {best.value:g}")
    for result in best.results:
        evaluated = [(r.round, r.heldout["loss"]) for r in result.records if r.heldout]
        axes.plot(*zip(*evaluated, strict=True), color=colour, marker="o", ms=3, label=name)
        name = None


def setting_curve(
    axes: Axes,
    places: Sequence[float],
    settings: Sequence[Setting],
    metric: str = "loss",
    *,
    row: int = 0,
    at_top: bool = True,
) -> None:
    """Draw an architecture's settings: means and half ranges, and crosses where a seed diverged.

    Args:
        axes: Where to.
        places: The settings' places on the x axis.
        settings: Of one architecture.
        metric: A held-out metric.
        row: Of the crosses, one for each architecture, lest one hides another.
        at_top: Whether the rows count down from the top of the axes, or up from the bottom.
    """
    architecture = settings[0].architecture
    colour = colour_of(architecture)
    placed = list(zip(places, settings, strict=True))
    stable = [(x, setting) for x, setting in placed if setting.measured]
    axes.errorbar(
        [x for x, _ in stable],
        [setting.mean(metric) for _, setting in stable],
        yerr=[setting.half_range_of(metric) for _, setting in stable],
        color=colour,
        marker="o",
        capsize=3,
        label=for_figure(label(architecture)),
    )
    diverged = [x for x, setting in placed if setting.diverged]
    if diverged:
        # In axes coordinates: a diverged run has no loss that could be drawn to scale.
        axes.plot(
            diverged,
            [0.97 - 0.06 * row if at_top else 0.03 + 0.06 * row] * len(diverged),
            color=colour,
            marker="x",
            ms=9,
            mew=2.5,
            linestyle="none",
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            label=for_figure(f"{label(architecture)} diverged"),
        )


def _curve(
    axes: Axes, records: Sequence[RoundRecord], metric: str, colour: str | None, label: str
) -> None:
    values = [record.heldout[metric] for record in records if record.heldout]
    axes.plot(
        [r.round for r in records], values, color=colour or _GREY, marker="o", ms=3, label=label
    )


def unigram_line(axes: Axes, loss: float | None) -> None:
    """Draw the loss of a model that knows only how frequent words are, if it has one."""
    if loss is None:
        return
    axes.axhline(loss, color=_GREY, linestyle=":", linewidth=1.2, label="unigram model")
