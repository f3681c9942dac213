"""The figure of an audit: scores of canaries that took part and of those that did not."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from server.runs.folder import RunFolder
from server.runs.summary import AuditSummary
from simulations.reports.figures import STYLE, save_figure

FIGURE = "audit"
BINS = 20


def write_audit(claimed: float | None, found: AuditSummary, folder: Path) -> None:
    """Write ``audit.png`` and ``.svg`` beside a run's canaries.

    Args:
        claimed: The claimed epsilon; None if it is infinite.
        found: The result of the audit.
        folder: The run's folder.

    Raises:
        UserError: The canaries cannot be read.
    """
    save_figure(audit_figure(*RunFolder(folder).canaries(), claimed, found), folder / FIGURE)


def audit_figure(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    claimed: float | None,
    found: AuditSummary,
) -> Figure:
    """Draw the scores of both halves of the canaries."""
    bins = np.linspace(scores.min(), scores.max(), BINS + 1).tolist()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for label, inside, colour in (
            ("did not", False, "#5d6b79"),
            ("took part", True, "#c8500a"),
        ):
            half = scores[included == inside]
            # Outlines, because two overlapping fills look like a third group.
            axes.hist(half, bins, histtype="stepfilled", color=colour, alpha=0.2)
            axes.hist(
                half,
                bins,
                histtype="step",
                color=colour,
                linewidth=1.5,
                label=f"{len(half)} {label}, mean {half.mean():.1f}",
            )
            axes.axvline(half.mean(), color=colour, linestyle="--", linewidth=1.2)
        epsilon = "infinite" if claimed is None else f"{claimed:.2f}"
        verdict = "refuted" if found.refuted else "not refuted"
        axes.set_axisbelow(True)
        axes.set(
            xlabel="sum of the releases along the canary's direction, in clip norms",
            ylabel="canaries",
            title=f"Claimed epsilon {epsilon}, at least {found.bound:.2f}: {verdict}",
        )
        figure.legend(loc="outside lower center", ncols=2)
    return figure
