"""Differences of two settings over many studies, in one figure, from tables of runs.

``python -m simulations.benchmarks.differences DIFFERENCES.toml OUT`` reads a list such as ::

    lower = "SI-CIFG is better"
    higher = "CIFG is better"

    [[difference]]
    setting = "2,000 rounds"
    runs = "horizon_runs.csv"
    loss = "test_loss"
    where = { rounds = 2000 }
    first = { arm = "SI-CIFG" }
    second = { arm = "CIFG" }

in which ``runs`` is a table beside the list with a row for each run, and ``where``, ``first`` and
``second`` are values of its columns. Runs of the same seed are subtracted, first minus second, and
the interval is Student's t over seeds. P values are corrected for the number of differences that
have enough seeds (Holm). It writes ``differences.csv``, ``.md``, ``.png`` and ``.svg``.
"""

import math
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from fedsi.errors import UserError
from fedsi.files import make_folder, write_atomically
from simulations.reports.figures import STYLE, save_figure
from simulations.reports.marks import GREY
from simulations.reports.study_words import interval_text
from simulations.studies.statistics import (
    FEWEST_SEEDS,
    Interval,
    claim_interval,
    holm,
    t_test_p_value,
)

Values = Mapping[str, str | float]

COLOURS = {"lower": "#1b7837", "higher": "#c44e52", "neither": GREY}
"""Colours of intervals below zero, above zero, and of those that hold zero or have few seeds."""


class Difference(BaseModel):
    """Two settings of a study to subtract."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    setting: str
    runs: str
    loss: str
    where: dict[str, str | float] = {}
    first: dict[str, str | float]
    second: dict[str, str | float]


class Differences(BaseModel):
    """A list of differences, and what their signs mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lower: str
    higher: str
    difference: list[Difference]


@dataclass(frozen=True)
class Found:
    """A difference of losses, in nats, over some seeds."""

    setting: str
    seeds: int
    interval: Interval
    """Its ends are infinite if there are too few seeds for a claim."""
    p_value: float
    """P value, not corrected; 1 if there are too few seeds."""

    @property
    def claimable(self) -> bool:
        """Whether there are enough seeds for a claim."""
        return self.seeds >= FEWEST_SEEDS

    @property
    def side(self) -> str:
        """``lower`` or ``higher`` if the seeds show a difference, or ``neither``."""
        if self.interval.holds_zero:
            return "neither"
        return "lower" if self.interval.high < 0 else "higher"


def subtracted(one: Difference, table: pd.DataFrame) -> Found:
    """Return the difference of the runs that have the same seed.

    Args:
        one: What to subtract.
        table: A row for each run; it has a column ``seed`` and all that are named.

    Raises:
        UserError: A column or a setting is missing, no seed is in both, one is twice in one, or a
            run has no finite loss.
    """
    first, second = (_losses(table, one, values) for values in (one.first, one.second))
    shared = first.index.intersection(second.index)
    gaps = [float(first[seed] - second[seed]) for seed in shared]
    if not gaps:
        raise UserError(f"{one.setting}: no seed of {one.runs} has runs of both settings.")
    if not np.isfinite(gaps).all():
        raise UserError(f"{one.setting}: a run of {one.runs} has no finite {one.loss}.")
    return Found(one.setting, len(gaps), claim_interval(gaps), t_test_p_value(gaps))


def _losses(table: pd.DataFrame, one: Difference, values: Values) -> "pd.Series[float]":
    """Return the losses of the runs that have these values, by seed."""
    wanted = {**one.where, **values}
    missing = sorted({"seed", one.loss, *wanted} - set(table.columns))
    if missing:
        raise UserError(f"{one.setting}: {one.runs} has no column {', '.join(missing)}.")
    for column, value in wanted.items():
        table = table[table[column] == value]
    if table["seed"].duplicated().any():
        said = f"{one.setting}: more than one run of a seed matches {values} in {one.runs}"
        raise UserError(f"{said}. Name the columns by which they differ.")
    return table.set_index("seed")[one.loss]


def differences_figure(found: Sequence[Found], lower: str, higher: str) -> Figure:
    """Draw each difference with its interval, the first at the top.

    Args:
        found: The differences. Those of too few seeds for a claim are drawn without interval.
        lower: What a negative difference means.
        higher: What a positive one means.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.4 + 0.34 * len(found)), layout="constrained")
        axes = figure.subplots()
        for place, one in enumerate(found):
            interval, enough = one.interval, one.claimable
            reach = [[interval.estimate - interval.low], [interval.high - interval.estimate]]
            axes.errorbar(
                interval.estimate,
                place,
                xerr=np.array(reach) if enough else None,
                fmt="o",
                color=COLOURS[one.side],
                markerfacecolor=COLOURS[one.side] if enough else "white",
                capsize=3,
            )
        axes.axvline(0, color=GREY, linewidth=1)
        axes.set_yticks(range(len(found)), [f"{one.setting} ({one.seeds})" for one in found])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_title(f"← {lower}", loc="left", fontsize=10, color=COLOURS["lower"])
        axes.set_title(f"{higher} →", loc="right", fontsize=10, color=COLOURS["higher"])
        axes.set_xlabel(
            "difference of losses (nats), with 95 % intervals\n"
            f"in brackets: seeds; hollow: fewer than {FEWEST_SEEDS}, no claim"
        )
    return figure


def found_in(source: Path) -> tuple[Differences, list[Found]]:
    """Return a list's contents, and its differences in the tables beside it.

    Raises:
        UserError: A setting of the list is not in its table.
    """
    listed = Differences.model_validate(tomllib.loads(source.read_text()))
    tables = {one.runs: pd.read_csv(source.parent / one.runs) for one in listed.difference}
    return listed, [subtracted(one, tables[one.runs]) for one in listed.difference]


def differences_table(found: Sequence[Found]) -> pd.DataFrame:
    """Return a row for each difference: its interval, and its p value before and after Holm."""
    rows = pd.DataFrame([vars(one.interval) for one in found])
    rows.insert(0, "setting", [one.setting for one in found])
    rows.insert(1, "seeds", [one.seeds for one in found])
    claimed = [one.p_value for one in found if one.claimable]
    corrected = iter(holm(claimed))
    rows["p"] = [one.p_value if one.claimable else math.nan for one in found]
    rows["p_holm"] = [next(corrected) if one.claimable else math.nan for one in found]
    return rows


def markdown(found: Sequence[Found], table: pd.DataFrame) -> str:
    """Return the table of differences as Markdown."""
    tests = int(table["p_holm"].notna().sum())
    lines = [f"| setting | seeds | difference | p, corrected for {tests} |", "|---|---|---|---|"]
    for one, p in zip(found, table["p_holm"], strict=True):
        cells = [one.setting, str(one.seeds), interval_text(one.interval), _p_text(p)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _p_text(p: float) -> str:
    """Return a p value to three places, or nothing if there is none."""
    if math.isnan(p):
        return ""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def main(words: Sequence[str]) -> None:
    """Subtract, and write the table and the figure."""
    out = Path(words[1])
    listed, found = found_in(Path(words[0]))
    make_folder(out)
    table = differences_table(found)
    table.to_csv(out / "differences.csv", index=False, float_format="%.5f")
    write_atomically(out / "differences.md", markdown(found, table).encode())
    save_figure(differences_figure(found, listed.lower, listed.higher), out / "differences")


if __name__ == "__main__":
    main(sys.argv[1:])
