"""``fedsi bench``: measure fedsi on this machine."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from simulations.cli import options
from simulations.cli.display import Display

bench = typer.Typer(help="Measure fedsi on this machine.", no_args_is_help=True)


@bench.command()
def ingestion(
    clients: Annotated[int, typer.Option(min=10, help="Clients to generate.")] = 100_000,
    sentences: Annotated[int, typer.Option(min=10, help="Sentences of all.")] = 5_000_000,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the corpus goes; by default it is removed again."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Generate a corpus like Stack Overflow and build its token store."""
    from simulations.benchmarks.ingestion import measure_ingestion  # noqa: PLC0415

    if sentences < clients:
        raise typer.BadParameter(f"{sentences} sentences are too few for {clients} clients")
    with tempfile.TemporaryDirectory(dir=folder) as place, Display(options.messages()) as display:
        result = measure_ingestion(Path(place), clients, sentences, display.step)
    _show(result, as_json=as_json)


@bench.command()
def population(
    clients: Annotated[int, typer.Option(min=100, help="Synthetic clients.")] = 1_000_000,
    cohort: Annotated[int, typer.Option(min=1, help="Clients in a round.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to train.")] = 3,
    as_json: options.Json = False,
) -> None:
    """Open a large synthetic population, draw cohorts of it and train some."""
    from simulations.benchmarks.population import measure_population  # noqa: PLC0415

    if cohort > clients // 2:
        raise typer.BadParameter(f"a cohort of {cohort} is too large for {clients} clients")
    _show(measure_population(clients, cohort, rounds), as_json=as_json)


def _show(result: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result))
        return
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for key, value in result.items():
        table.add_row(key.replace("_", " "), _text(value))
    Console().print(table)


def _text(value: Any) -> str:
    match value:
        case dict():
            return "\n".join(f"{key.replace('_', ' ')}: {_text(v)}" for key, v in value.items())
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
