"""Marks beside curves: lines of n-gram models, and strips for runs that diverged."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fedsi.data.baselines import Baselines

GREY = "#666666"
_STYLES = {"unigram": ":", "bigram": "--", "trigram": "-.", "frequent labels": ":", "BM25": "--"}
_LABEL_GAP = 0.055
"""Smallest distance of two labels, as a share of the axis."""
_STRIP = 0.07
"""Height of a strip, as a share of the axis."""
_SMALL = 8


def ngram_losses(
    baselines: Baselines | None, kept: NDArray[np.bool_] | None = None
) -> dict[str, float]:
    """Return the losses of n-gram models by name, in nats per target; empty without counts.

    Args:
        baselines: Counts of the models.
        kept: Mask of the clients; None for all.
    """
    if baselines is None or baselines.ranks_labels:
        return {}
    return {name: baselines.loss(name, kept) for name in baselines.names}


def ranking_scores(baselines: Baselines | None) -> dict[str, float]:
    """Return the shares of right first labels of rankings by name; empty for n-gram models."""
    if baselines is None or not baselines.ranks_labels:
        return {}
    return {name: baselines.accuracy(name) for name in baselines.names}


def ngram_lines(axes: Axes, losses: Mapping[str, float]) -> None:
    """Draw lines of n-gram models or rankings, each with its name and value right of the axes.

    A line above a range that is set already has an arrow behind its value. The range of the y axis
    must not change afterwards, except by ``diverged_strips``.

    Args:
        axes: The axes to draw on.
        losses: The losses by name, in nats per target; or the shares of right first labels.
    """
    for name, loss in losses.items():
        axes.axhline(loss, color=GREY, linestyle=_STYLES[name], linewidth=1.2)
    low, high = axes.get_ylim()
    places = spread([min(loss, high) for loss in losses.values()], _LABEL_GAP * (high - low))
    for (name, loss), place in zip(losses.items(), places, strict=True):
        axes.text(
            1.01,
            place,
            f"{name} {loss:.2f}{' ↑' if loss > high else ''}",
            color=GREY,
            fontsize=_SMALL,
            va="center",
            transform=axes.get_yaxis_transform(),
        )


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Return places for labels: at their values, or above them where others are too near.

    Args:
        values: Any order; the places keep it.
        gap: Smallest distance of two places.
    """
    places, last = [0.0] * len(values), -math.inf
    for index in sorted(range(len(values)), key=lambda one: values[one]):
        last = places[index] = max(values[index], last + gap)
    return places


def diverged_strips(
    axes: Axes, marked: Mapping[str, Sequence[float]], *, above: bool = True
) -> None:
    """Add a strip at the edge of the axes for each arm, with a cross at each diverged place.

    A diverged run has no value on the y axis. So its mark lies outside the range of values, in a
    strip of its arm's colour that says "diverged", and has no tick.

    Args:
        axes: The axes, with everything else drawn.
        marked: Places on the x axis by the arm's colour; arms without a place get no strip.
        above: Whether strips are added at the top or at the bottom.
    """
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    step = (high - low) * _STRIP * (1 if above else -1)
    edge = high if above else low
    for colour, places in marked.items():
        if not places:
            continue
        middle = edge + step / 2
        axes.axhspan(edge, edge + step, color=colour, alpha=0.18, linewidth=0)
        axes.plot(places, [middle] * len(places), "x", color=colour, ms=7, mew=2, clip_on=False)
        axes.text(
            1.01,
            middle,
            "diverged",
            color=colour,
            fontsize=_SMALL,
            va="center",
            transform=axes.get_yaxis_transform(),
        )
        edge += step
    axes.set_yticks(ticks)
    axes.set_ylim((low, edge) if above else (edge, high))
