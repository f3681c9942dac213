"""``fedsi bench``: comparison with other simulators."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulations.cli import options
from simulations.cli.bench.shared import (
    ALL_SIZES,
    BOTH_CELLS,
    Architectures,
    Cohort,
    Corpus,
    Rounds,
    Sizes,
    tasks_of,
    write,
)
from simulations.cli.display import Display

if TYPE_CHECKING:
    from fedsi.experiment import Experiment


def peers(
    pfl_python: Annotated[
        Path,
        typer.Option(metavar="PYTHON", help="The Python of an environment that has pfl 0.6."),
    ],
    corpus: Corpus = "pydocs",
    architectures: Architectures = BOTH_CELLS,
    sizes: Sizes = ALL_SIZES,
    precision: Annotated[
        str, typer.Option(help="fedsi's client.precision; pfl's is float32.")
    ] = "float32",
    cohort: Cohort = 20,
    rounds: Rounds = 6,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Train the same models on the same clients with fedsi and with pfl-research, in turn."""
    _check_python(pfl_python, "pfl", "pfl[pytorch]==0.6.0")
    tasks = [
        (name, experiment.updated({"client.precision": precision}))
        for name, experiment in tasks_of(corpus, architectures, sizes, cohort, rounds)
    ]
    _compare("peers", "pfl", pfl_python, tasks, cache, out, as_json=as_json)


def flower(
    flower_python: Annotated[
        Path,
        typer.Option(metavar="PYTHON", help="The Python of an environment that has Flower 1.41."),
    ],
    corpus: Corpus = "pydocs",
    architectures: Architectures = BOTH_CELLS,
    sizes: Sizes = "1.3M",
    cohort: Cohort = 50,
    rounds: Rounds = 4,
    out: options.Out = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Train the same clients with fedsi and with Flower's simulation, a node for each client."""
    _check_python(flower_python, "flwr", "flwr[simulation]==1.41.0")
    tasks = tasks_of(corpus, architectures, sizes, cohort, rounds)
    _compare("flower", "flower", flower_python, tasks, cache, out, as_json=as_json)


def _check_python(python: Path, folder: str, package: str) -> None:
    if not python.exists():
        raise typer.BadParameter(
            f"there is no {python}; make an environment with: python -m venv {folder} && "
            f"{folder}/bin/pip install '{package}'"
        )


def _compare(
    name: str,
    peer: str,
    python: Path,
    tasks: Sequence[tuple[str, "Experiment"]],
    cache: Path,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    from simulations.benchmarks.peers import measure, report

    measured = []
    with Display(options.messages()) as display:
        for size, experiment in tasks:
            with tempfile.TemporaryDirectory() as task:
                measured.append(
                    measure.measure_peers(
                        experiment, size, peer, python, Path(task), cache, display.step
                    )
                )
    rows = [asdict(one) for one in measured]
    write(report.peers_report(measured, name), rows, out, as_json=as_json)
