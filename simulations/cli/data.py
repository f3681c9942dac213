"""``fedsi data``: look at a corpus."""

import json
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from fedsi.data.population import read_meta
from fedsi.data.prepare import open_population, prepare
from fedsi.data.synthetic import SyntheticPopulation
from fedsi.experiment import Experiment, parse_overrides
from fedsi.training.metrics import perplexity
from simulations.cli import options
from simulations.cli.display import Display

data = typer.Typer(help="Look at corpora.", no_args_is_help=True)


@data.callback()
def _group() -> None:
    """Look at corpora."""


@data.command()
def describe(
    corpus: str = typer.Argument(help="pydocs, synthetic, or the path of a .jsonl or .csv file."),
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Say how many clients and words a corpus has, and what a unigram model makes of it."""
    changes = {"data.corpus": corpus, **parse_overrides(overrides or [])}
    experiment = Experiment().updated(changes)
    with Display(options.messages()) as display:
        folder = prepare(experiment.data, cache, display.step)
    facts = _facts(asdict(open_population(folder).description), read_meta(folder))
    population = open_population(folder)
    if isinstance(population, SyntheticPopulation):
        first = population.description.training_clients
        last = first + min(population.description.heldout_clients, 200)
        facts["best_possible_loss"] = population.best_loss(range(first, last))
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        Console().print(_table(facts))


def _facts(description: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = description | meta.get("statistics", {})
    facts["unigram_perplexity"] = perplexity(description["unigram_loss"])
    return facts


def _table(facts: dict[str, Any]) -> Table:
    table = Table(show_header=False, title=str(facts["corpus"]), title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    for key, value in facts.items():
        table.add_row(key.replace("_", " "), _text(value))
    return table


def _text(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{name} {number:,.0f}" for name, number in value.items())
        case float():
            return f"{value:.4f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
