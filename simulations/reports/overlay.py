"""The held-out curves of several runs in one figure."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedsi.tasks.task import Task
from server.round_record import RoundRecord
from simulations.reports.figures import STYLE
from simulations.safe_text import for_figure

_STYLES = ("-", "--", ":", "-.")
_COLOURS = 10
"""Colours of Matplotlib's default cycle; the line style changes after each cycle."""


def overlay(runs: Mapping[str, Sequence[RoundRecord]], task: Task) -> Figure:
    """Draw the held-out loss and score of runs over their rounds, a line for each run.

    Args:
        runs: The rounds so far, by the run's name.
        task: The runs' task.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 3.8), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True)
        panels[0].set(title="Held-out loss", ylabel="nats per target")
        panels[1].set(title=f"Held-out {task.title}", ylabel=f"share of {task.unit}")
        for axes, metric in zip(panels, ("loss", task.score), strict=True):
            for number, (name, records) in enumerate(runs.items()):
                evaluated = [r for r in records if r.heldout]
                axes.plot(
                    [r.round for r in evaluated],
                    [r.heldout[metric] for r in evaluated if r.heldout],
                    color=f"C{number % _COLOURS}",
                    linestyle=_STYLES[number // _COLOURS % len(_STYLES)],
                    marker="o",
                    ms=3,
                    label=for_figure(name),
                )
            axes.set_xlabel("round")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        lines, names = panels[0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside lower center", ncols=min(len(names), 3))
    return figure
