"""Options of several benchmarks, and the output of their results."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulations.cli import options
from simulations.cli.measurements import show_measurements
from simulations.cli.wide_table import print_facts

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from simulations.benchmarks.report import Measurements

Corpus = Annotated[str, typer.Option(help="The texts to train on.")]
Architectures = Annotated[str, typer.Option(metavar="NAME,...", help="Which architectures.")]
Sizes = Annotated[str, typer.Option(metavar="SIZE,...", help="Which sizes of the model.")]
Cohort = Annotated[int, typer.Option(min=1, help="Clients in a round.")]
Rounds = Annotated[int, typer.Option(min=2, help="Rounds; the first is dropped.")]

BOTH_CELLS, ALL_SIZES = "cifg,si_cifg", "0.05M,0.34M,1.3M,3.5M"


def tasks_of(
    corpus: str, architectures: str, sizes: str, cohort: int, rounds: int
) -> list[tuple[str, "Experiment"]]:
    """Return each model's size and experiment."""
    from fedsi.experiment import Experiment
    from simulations.benchmarks.peers.measure import (
        ARCHITECTURES,
        SIZES,
        experiment_for,
    )

    for what, text, known in (("size", sizes, SIZES), ("model", architectures, ARCHITECTURES)):
        unknown = set(text.split(",")) - set(known)
        if unknown:
            raise typer.BadParameter(
                f"there is no {what} {min(unknown)}; choose from {', '.join(known)}"
            )
    base = Experiment().updated({"data.corpus": corpus})
    return [
        (size, experiment_for(base, architecture, size, cohort, rounds))
        for architecture in architectures.split(",")
        for size in sizes.split(",")
    ]


def counts_of(option: str, text: str) -> list[int]:
    """Return the different counts of an option, such as ``1,2``."""
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1 or len(set(counts)) < len(counts):
        raise typer.BadParameter(f"{option} {text} is not a list of different counts like 1,2")
    return counts


def sizes_of(text: str) -> list[tuple[int, int]]:
    """Return the pairs of ``--sizes``, such as ``10000x670``."""
    try:
        pairs = [tuple(map(int, word.split("x"))) for word in text.split(",") if word]
        sizes = [(words, size) for words, size in pairs]
    except ValueError:
        sizes = [(0, 0)]
    if any(min(size) < 1 for size in sizes):
        raise typer.BadParameter(f"--sizes {text} is not a list of sizes like 10000x670,50000x670")
    return sizes


def write(report: "Measurements", result: Any, out: Path | None, *, as_json: bool) -> None:
    """Write a report, and print its table or the result as JSON."""
    folder = out or options.default_folder(f"bench-{report.name}")
    show_measurements(report, result, folder, as_json=as_json)


def show(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a result that has no table: as lines of facts, or as JSON."""
    if as_json:
        typer.echo(json.dumps(result))
        return
    facts = {key.replace("_", " "): _text(value) for key, value in result.items()}
    print_facts(options.output(), "", facts)


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
