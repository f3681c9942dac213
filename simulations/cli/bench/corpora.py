"""``fedsi bench``: building corpora and populations."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fedsi.files import make_folder
from simulations.cli import options
from simulations.cli.bench.shared import show
from simulations.cli.display import Display


def ingestion(
    clients: Annotated[int, typer.Option(min=10, help="Clients to generate.")] = 100_000,
    sentences: Annotated[int, typer.Option(min=10, help="Sentences of all.")] = 5_000_000,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for the corpus; by default it is deleted afterwards."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Generate a corpus like Stack Overflow and build its token store."""
    from simulations.benchmarks.ingestion import measure_ingestion

    if sentences < clients:
        raise typer.BadParameter(f"{sentences} sentences are too few for {clients} clients")
    if folder is not None:
        make_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder) as place, Display(options.messages()) as display:
        result = measure_ingestion(Path(place), clients, sentences, display.step)
    show(result, as_json=as_json)


def population(
    clients: Annotated[int, typer.Option(min=100, help="Synthetic clients.")] = 1_000_000,
    cohort: Annotated[int, typer.Option(min=1, help="Clients in a round.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to train.")] = 3,
    as_json: options.Json = False,
) -> None:
    """Open a large synthetic population, draw cohorts of it and train some."""
    from simulations.benchmarks.large_population import measure_population

    if cohort > clients // 2:
        raise typer.BadParameter(f"a cohort of {cohort} is too large for {clients} clients")
    show(measure_population(clients, cohort, rounds), as_json=as_json)
