"""``fedsi bench``: measure fedsi on this machine."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedsi.experiment import Experiment
from fedsi.files import make_folder
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
    if folder is not None:
        make_folder(folder)
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


@bench.command()
def peers(
    pfl_python: Annotated[
        Path,
        typer.Option(metavar="PYTHON", help="The Python of an environment that has pfl 0.6."),
    ],
    corpus: Annotated[str, typer.Option(help="The texts to train on.")] = "pydocs",
    architectures: Annotated[str, typer.Option(metavar="NAME,...")] = "cifg,si_cifg",
    sizes: Annotated[str, typer.Option(metavar="SIZE,...")] = "0.05M,0.34M,1.3M,3.5M",
    cohort: Annotated[int, typer.Option(min=1, help="Clients in a round.")] = 20,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds; the first is dropped.")] = 6,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Train the same models on the same clients with fedsi and with pfl-research, in turn."""
    from simulations.benchmarks.machine import machine  # noqa: PLC0415
    from simulations.benchmarks.peers import measure, report  # noqa: PLC0415

    if not pfl_python.exists():
        raise typer.BadParameter(
            f"there is no {pfl_python}; make an environment with: python -m venv pfl && "
            "pfl/bin/pip install 'pfl[pytorch]==0.6.0'"
        )
    unknown = set(sizes.split(",")) - measure.SIZES.keys()
    if unknown:
        known = ", ".join(measure.SIZES)
        raise typer.BadParameter(f"there is no size {min(unknown)}; choose from {known}")
    base = Experiment().updated({"data.corpus": corpus})
    measured = []
    with Display(options.messages()) as display:
        for architecture in architectures.split(","):
            for size in sizes.split(","):
                experiment = measure.experiment_for(base, architecture, size, cohort, rounds)
                with tempfile.TemporaryDirectory() as task:
                    measured.append(
                        measure.measure_peers(
                            experiment, size, pfl_python, Path(task), cache, display.step
                        )
                    )
    folder = out or options.default_folder("bench-peers")
    report.write_report(measured, machine(), folder)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in measured]))
    else:
        typer.echo((folder / f"{report.NAME}.md").read_text(encoding="utf-8"))
    options.messages().print(f"figure: {folder / report.NAME}.png", highlight=False, soft_wrap=True)


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
