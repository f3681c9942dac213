"""Figures, drawn without pyplot to avoid window systems and global state."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from fedsi.data.baselines import Baselines
from fedsi.files import write_atomically
from fedsi.models.table import architecture
from fedsi.tasks.task import Task
from server.round_record import RoundRecord
from server.runs.summary import PrivacySummary, Summary
from simulations.reports.marks import GREY, ngram_lines, ngram_losses, ranking_scores
from simulations.safe_text import for_figure


def label(name: str) -> str:
    """Return the name of an architecture in tables and pages; a user's own is its import path."""
    return architecture(name).label


def colour_of(name: str) -> str:
    """Return the colour of an architecture's lines."""
    return architecture(name).colour


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


@contextmanager
def any_sign() -> Iterator[None]:
    """Draw characters that the font lacks as boxes, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"Glyph \d+ .* missing from", category=UserWarning
        )
        yield


def svg(figure: Figure, part: Bbox | None = None) -> str:
    """Return a figure, or a part of it in inches, as SVG; the same figure gives the same text."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE), any_sign():
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches=part)
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as .png and .svg.

    Args:
        figure: The figure.
        path: The path without suffix.
    """
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE), any_sign():
        figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path.with_suffix(".png"), buffer.getvalue())
    write_atomically(path.with_suffix(".svg"), svg(figure).encode())


def run_curves(
    records: Sequence[RoundRecord],
    summary: Summary,
    task: Task,
    baselines: Baselines | None = None,
) -> Figure:
    """Draw a run's losses, its held-out accuracy, and epsilon so far if it is finite.

    Args:
        records: The rounds.
        summary: The run's summary.
        task: The task.
        baselines: N-gram models on the same targets, drawn as lines; None draws the unigram
            model's loss only.
    """
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
        losses.set(xlabel="round", ylabel="loss (nats per token)", title="Loss")
        legend_below(losses)
        ngram_lines(losses, _counting(summary, baselines))
        for metric, called in task.curves.items():
            _curve(accuracy, evaluated, metric, colour if metric == task.score else None, called)
        accuracy.set(xlabel="round", ylabel=f"share of {task.unit}", title=f"Held-out {task.title}")
        accuracy.set_ylim(bottom=0)
        ngram_lines(accuracy, ranking_scores(baselines))
        legend_below(accuracy)
        if claim:
            _epsilon_so_far(others[0], records, claim)
        name = label(summary.architecture)
        title = f"{name} on {summary.corpus}, {summary.parameters:,} parameters"
        figure.suptitle(for_figure(title))
    return figure


def _counting(summary: Summary, baselines: Baselines | None) -> dict[str, float]:
    """Return the losses to draw as lines: the unigram model's, if no others were counted."""
    if baselines is None and summary.unigram_loss is not None:
        return {"unigram": summary.unigram_loss}
    return ngram_losses(baselines)


def legend_below(axes: Axes) -> None:
    """Put the legend of one panel below its x axis, where it hides no curve."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _epsilon_so_far(axes: Axes, records: Sequence[RoundRecord], claim: PrivacySummary) -> None:
    axes.step([r.round for r in records], [r.epsilon for r in records], where="post", color=GREY)
    axes.set_ylim(bottom=0)
    mark = "extrapolated" if claim.extrapolated else claim.mechanism
    axes.set(
        xlabel="round",
        ylabel=f"epsilon at delta = {claim.delta:.2g}",
        title=f"Epsilon so far ({mark})",
    )


def clients_histogram(words_per_client: NDArray[np.integer[Any]]) -> Figure:
    """Draw a histogram of the words per client, with the median and the 90 % quantile.

    Args:
        words_per_client: Words of each client, at least one; not empty.
    """
    median, most = np.quantile(words_per_client, (0.5, 0.9))
    # From the power of two at or below the smallest client to the one above the largest.
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
            axes.axvline(value, color=GREY, linestyle=style, label=f"{label}: {value:,.0f}")
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


def _curve(
    axes: Axes, records: Sequence[RoundRecord], metric: str, colour: str | None, label: str
) -> None:
    values = [record.heldout[metric] for record in records if record.heldout]
    axes.plot(
        [r.round for r in records], values, color=colour or GREY, marker="o", ms=3, label=label
    )
