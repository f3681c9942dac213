"""Output of a command that measures: its files, and a table or JSON."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from simulations.cli import options
from simulations.cli.wide_table import print_table
from simulations.safe_text import one_line

if TYPE_CHECKING:
    from simulations.benchmarks.report import Measurements


def show_measurements(report: "Measurements", result: Any, folder: Path, *, as_json: bool) -> None:
    """Write a report to a folder, and print its table or the result as JSON."""
    from simulations.benchmarks.report import machine_in_words, write_measurements

    write_measurements(report, folder)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        console, name = options.output(), report.name.replace("-", " ")
        print_table(console, name.capitalize(), report.header, report.table)
        console.print(f"{report.note}; {machine_in_words()}.", highlight=False)
    figure = folder / f"{report.name}.png"
    options.messages().print(f"figure: {one_line(str(figure))}", highlight=False, soft_wrap=True)
