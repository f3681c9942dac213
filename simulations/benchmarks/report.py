"""A benchmark's report: a CSV, a markdown table and a figure, with the machine described."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsi.files import make_folder, write_atomically
from simulations.benchmarks.machine import machine
from simulations.reports.figures import colour_of, label, save_figure
from simulations.safe_text import for_spreadsheet


@dataclass(frozen=True)
class Measurements:
    """A benchmark's result."""

    name: str
    """Name of its files, without suffix."""
    rows: Sequence[Mapping[str, Any]]
    """Rows of the CSV; all have the same keys."""
    header: Sequence[str]
    """Names of the table's columns."""
    table: Sequence[Sequence[str]]
    note: str
    """The method: the beginning of a sentence that ends with the machine's description."""
    figure: Figure


def write_measurements(report: Measurements, folder: Path) -> None:
    """Write the report's ``.csv``, ``.md``, ``.png`` and ``.svg``.

    Raises:
        UserError: The folder cannot be written.
    """
    make_folder(folder)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, report.rows[0])
    writer.writeheader()
    writer.writerows({key: for_spreadsheet(one) for key, one in row.items()} for row in report.rows)
    write_atomically(folder / f"{report.name}.csv", text.getvalue().encode())
    write_atomically(folder / f"{report.name}.md", _markdown(report).encode())
    save_figure(report.figure, folder / report.name)


def grouped_bars(axes: Axes, values: Mapping[tuple[str, str], float]) -> None:
    """Draw a group of bars for each size, with a bar for each architecture.

    Args:
        axes: The axes to draw on.
        values: Values by architecture and size.
    """
    architectures = list(dict.fromkeys(architecture for architecture, _ in values))
    sizes = list(dict.fromkeys(size for _, size in values))
    width = 0.8 / len(architectures)
    for place, architecture in enumerate(architectures):
        axes.bar(
            [k + (place + 0.5) * width - 0.4 for k in range(len(sizes))],
            [values.get((architecture, size), 0.0) for size in sizes],
            width * 0.92,
            color=colour_of(architecture),
            label=label(architecture),
        )
    axes.set_xticks(range(len(sizes)), sizes)
    axes.set_axisbelow(True)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("parameters")
    axes.legend(frameon=True, framealpha=1, edgecolor="none")


def machine_in_words() -> str:
    """Return the machine in words."""
    return ", ".join(f"{key} {value}" for key, value in machine().items())


def _markdown(report: Measurements) -> str:
    lines = [report.header, ["---"] * len(report.header), *report.table]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), ""]) + (
        f"\n{report.note}; {machine_in_words()}.\n"
    )
