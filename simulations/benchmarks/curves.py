"""Figures of losses over rounds and of their differences, from tables of evaluated rounds.

``python -m simulations.benchmarks.curves CURVES.toml OUT`` reads a list such as ::

    [[figure]]
    name = "horizon"
    rounds = "horizon_rounds.csv"
    subtracted = "CIFG"
    ngrams = { bigram = 4.335 }

    [[figure.line]]
    name = "CIFG"
    architecture = "cifg"
    where = { arm = "CIFG" }

    [[figure.line]]
    name = "SI-CIFG"
    architecture = "si_cifg"
    where = { arm = "SI-CIFG" }
    minus = "CIFG"

in which ``rounds`` is a table beside the list, with a row for each evaluated round of a setting, a
column for each seed (``seed0``, ``seed1``, ...), and others that name the setting. It writes
``NAME.png`` and ``NAME.svg`` of each figure.
"""

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import BaseModel, ConfigDict

from fedsi.errors import UserError
from fedsi.files import make_folder
from simulations.reports.difference_panel import Losses, curve_of, draw_curves
from simulations.reports.figures import STYLE, colour_of, save_figure
from simulations.reports.marks import ngram_lines
from simulations.reports.ranges import leave_out_start


class Line(BaseModel):
    """A setting, drawn as the mean over its seeds, each of which is a thin line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    architecture: str
    style: Literal["-", "--", "-.", ":"] = "-"
    where: dict[str, str | float]
    minus: str | None = None
    """Name of the line that is subtracted from it in the second panel."""


class CurvesFigure(BaseModel):
    """A figure: losses over rounds, and the differences of some lines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    rounds: str
    subtracted: str
    ngrams: dict[str, float] = {}
    line: list[Line]


def losses_by_seed(line: Line, table: pd.DataFrame) -> Losses:
    """Return a line's losses by seed and round, without the untrained model.

    Args:
        line: The line.
        table: A row for each evaluated round of a setting, a column for each seed.

    Raises:
        UserError: The table has no column of that name, no such row, or a round twice.
    """
    for column, value in line.where.items():
        if column not in table:
            raise UserError(f"{line.name}: the table has no column {column}.")
        table = table[table[column] == value]
    trained = table[table["round"] > 0].set_index("round")
    if trained.empty or trained.index.has_duplicates:
        found = "no row" if trained.empty else "more than one row of a round"
        raise UserError(f"{line.name}: {found} matches {line.where}.")
    seeds = [
        name
        for name in map(str, trained)
        if name.startswith("seed") and trained[name].notna().any()
    ]
    return {
        int(name.removeprefix("seed")): dict(zip(kept.index, kept, strict=True))
        for name in seeds
        for kept in [trained[name].dropna()]
    }


def curves_figure(figure: CurvesFigure, table: pd.DataFrame) -> Figure:
    """Draw losses over rounds, and beside them the differences.

    Means are of the rounds that all seeds have. The legend says of how many, if some lack any.

    Args:
        figure: What to draw.
        table: A row for each evaluated round of a setting, a column for each seed.

    Raises:
        UserError: A line's rows are missing or ambiguous.
    """
    losses = {line.name: losses_by_seed(line, table) for line in figure.line}
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(9.6, 4.4), layout="constrained")
        over_rounds, apart = drawn.subplots(1, 2)
        _draw_losses(over_rounds, figure, losses)
        differences = [
            (colour_of(one.architecture), one.style, curve_of(losses[one.name], losses[one.minus]))
            for one in figure.line
            if one.minus
        ]
        draw_curves(apart, differences, figure.subtracted)
        drawn.legend(
            *over_rounds.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=2,
            handlelength=3,
        )
    return drawn


def _draw_losses(axes: Axes, figure: CurvesFigure, losses: dict[str, Losses]) -> None:
    points: list[tuple[int, float]] = []
    for line in figure.line:
        colour, by_seed = colour_of(line.architecture), [*losses[line.name].values()]
        for values in by_seed:
            axes.plot([*values], [*values.values()], line.style, color=colour, lw=0.6, alpha=0.4)
        rounds = sorted(set.intersection(*(set(values) for values in by_seed)))
        every = set.union(*(set(values) for values in by_seed))
        cut = f" (mean of {len(rounds)} of {len(every)} rounds: seeds lack the others)"
        name = line.name + (cut if len(rounds) < len(every) else "")
        means = [fmean(values[number] for values in by_seed) for number in rounds]
        axes.plot(rounds, means, line.style, color=colour, marker="o", ms=3, label=name)
        points += zip(rounds, means, strict=True)
    leave_out_start(axes, np.array(points).reshape(-1, 2), [], [*figure.ngrams.values()])
    ngram_lines(axes, figure.ngrams)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set(xlabel="round", ylabel="loss (nats per token)", title="Held-out loss")


def main(words: Sequence[str]) -> None:
    """Draw and write the figures."""
    source, out = Path(words[0]), Path(words[1])
    make_folder(out)
    for one in tomllib.loads(source.read_text())["figure"]:
        figure = CurvesFigure.model_validate(one)
        table = pd.read_csv(source.parent / figure.rounds)
        save_figure(curves_figure(figure, table), out / figure.name)


if __name__ == "__main__":
    main(sys.argv[1:])
