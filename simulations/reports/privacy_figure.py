"""The figure of ``fedsi privacy --compare``: the model's error against epsilon."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from fedsi.privacy.alternatives import Alternative
from simulations.reports.figures import STYLE

_MARKERS = "osD^"


def privacy_figure(levels: Sequence[Sequence[Alternative]]) -> Figure:
    """Draw the error of each way against epsilon, on logarithmic axes.

    Args:
        levels: The ways at each epsilon, in the same order.
    """
    plan = levels[0][0].plan
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for marker, way in zip(_MARKERS, zip(*levels, strict=True), strict=True):
            axes.loglog(
                [each.epsilon for each in way],
                [each.error for each in way],
                marker=marker,
                label=way[0].name,
            )
        axes.set(
            xlabel=f"epsilon at delta = {plan.delta:.3g}",
            ylabel="noise in the model (RMS, clip norms)",
            title=f"{plan.rounds:,} rounds of {plan.cohort_size:,} of {plan.population:,} clients",
        )
        ticks = [levels[i][0].epsilon for i in range(0, len(levels), 2)]
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
        figure.legend(loc="outside lower center", ncols=2)
    return figure
