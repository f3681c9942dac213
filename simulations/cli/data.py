"""``fedsi data``: describe corpora, and prepare them ahead of a run."""

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsi.files import make_folder, write_atomically
from simulations.cli import options
from simulations.cli.display import Display
from simulations.cli.wide_table import print_facts, print_table
from simulations.safe_text import one_line

if TYPE_CHECKING:
    from fedsi.experiment import Experiment

PICTURE, FACTS = "clients", "description.json"

data = typer.Typer(help="Describe corpora, and prepare them.", no_args_is_help=True)

_Corpus = Annotated[
    str, typer.Argument(metavar="CORPUS", help="pydocs, synthetic, or the path of any corpus.")
]


@data.command()
def describe(
    corpus: _Corpus,
    overrides: options.Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the figures; by default named after the corpus.",
        ),
    ] = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Count clients, sentences and words, and score n-gram models on the corpus."""
    from fedsi.data.cache import cache_folder
    from fedsi.data.population_facts import population_facts as describe_population
    from fedsi.data.prepare import open_population, prepare
    from simulations.reports.figures import clients_histogram, save_figure

    experiment = _experiment(corpus, overrides)
    console = options.messages()
    with Display(console) as display:
        population = prepare(experiment.data, cache, display.step)
        facts = describe_population(
            population,
            experiment.server.evaluation_clients,
            cache_folder(cache),
            display.step,
        )
        display.corpus(experiment, open_population(population).description)
    folder = out or Path("results") / f"describe-{_plain(corpus)}"
    make_folder(folder)
    if as_json:
        typer.echo(json.dumps(facts.values, allow_nan=False))
    else:
        _show(facts.values)
    save_figure(clients_histogram(facts.words_per_client), folder / PICTURE)
    text = json.dumps(facts.values, indent=1, allow_nan=False) + "\n"
    write_atomically(folder / FACTS, text.encode())
    console.print(
        f"picture: {one_line(str(folder / PICTURE))}.png", highlight=False, soft_wrap=True
    )


@data.command("prepare")
def prepare_command(
    corpus: _Corpus,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Build the token store ahead of a run with the same data settings."""
    from fedsi.data.prepare import open_population, prepare

    experiment = _experiment(corpus, overrides)
    began = time.perf_counter()
    console = options.messages()
    with Display(console) as display:
        folder = prepare(experiment.data, cache, display.step)
        description = open_population(folder).description
        display.corpus(experiment, description)
    facts = {
        "corpus": description.corpus,
        "clients": description.training_clients + description.heldout_clients,
        "training_clients": description.training_clients,
        "heldout_clients": description.heldout_clients,
        "clients_without_examples": description.clients_without_examples,
        "examples": description.training_examples + description.heldout_examples,
        "rows": description.rows,
        "rows_left_out": description.rows_left_out,
        "words_cut": description.words_cut,
        "heldout_in_training": description.heldout_in_training,
        "not_words": description.not_words,
        "corpus_sha256": description.corpus_sha256,
        "seconds": round(time.perf_counter() - began, 3),
    }
    if as_json:
        typer.echo(json.dumps({**facts, "folder": str(folder)}))
    else:
        _print_rows("Ready", _told(facts) | {"seconds": facts["seconds"]})
    console.print(f"store: {one_line(str(folder))}", highlight=False, soft_wrap=True)


@data.command("shard")
def shard_command(
    corpus: _Corpus,
    into: Annotated[int, typer.Option("--into", min=1, metavar="K", help="Number of shards.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the shards.")],
    overrides: options.Overrides = None,
    cache: options.Cache = options.CACHE,
) -> None:
    """Write a population as shards, one folder for each SuperNode, with one vocabulary."""
    from fedsi.data.prepare import open_population, prepare
    from fedsi.data.shards import write_shards

    experiment = _experiment(corpus, overrides)
    console = options.messages()
    with Display(console) as display:
        population = prepare(experiment.data, cache, display.step)
        display.corpus(experiment, open_population(population).description)
    for folder in write_shards(population, out, into):
        typer.echo(one_line(str(folder)))


def _experiment(corpus: str, overrides: list[str] | None) -> "Experiment":
    from fedsi.experiment import Experiment, parse_overrides

    options.refuse_runs(Path(corpus))
    return Experiment().updated({"data.corpus": corpus, **parse_overrides(overrides or [])})


def _plain(corpus: str) -> str:
    """Return a corpus's name in a form that can be part of a folder's name."""
    return re.sub(r"[^\w.-]+", "_", Path(corpus).name) or "corpus"


def _show(values: dict[str, Any]) -> None:
    _print_rows(str(values["corpus"]), _told(values))
    clients = f"{values['ngram_heldout_clients']:,} of {values['heldout_clients']:,}"
    title = f"On {clients} held-out clients, those that a run evaluates"
    rows = []
    for score in values["ngrams"]:
        perplexity = "-" if score["perplexity"] is None else f"{score['perplexity']:,.1f}"
        accuracies = (score["accuracy_no_oov_no_eos"], score["recall_at_1"])
        shown = ["-" if a is None else f"{a:.3f}" for a in accuracies]
        rows.append((score["model"], perplexity, *shown))
    header = ("n-gram model", "perplexity", "word accuracy", "recall at 1")
    print_table(options.output(), title, header, rows)


_LABELS = {
    "clients": "clients",
    "training_clients": "training clients",
    "heldout_clients": "held-out clients",
    "clients_without_examples": "clients without examples",
    "rows_left_out": "rows left out",
    "examples": "examples",
    "training_examples": "training examples",
    "heldout_examples": "held-out examples",
    "training_words": "training words",
    "heldout_words": "held-out words",
    "words_per_client": "words per client, by percentile",
    "distinct_words": "distinct training words",
    "vocabulary_size": "vocabulary, with special tokens",
    "vocabulary_coverage": "text covered, by number of words",
    "oov_rate_training": "unknown training words",
    "oov_rate_heldout": "unknown held-out words",
    "words_cut": "words beyond the sequence length",
    "not_words": "tokens that are not words, in a sample",
    "without_spaces": "characters without spaces",
    "heldout_in_training": "held-out sentences also trained on",
    "best_possible_loss": "best possible loss, nats per token",
}
"""Labels of the facts that users want to know, in this order."""

_SHARES = {"oov_rate_training", "oov_rate_heldout", "words_cut", "without_spaces"}
_SHARES |= {"vocabulary_coverage", "not_words", "heldout_in_training"}


def _told(values: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that users want to know by label; shares are percentages."""
    return {
        label: _percent(values[key]) if key in _SHARES else values[key]
        for key, label in _LABELS.items()
        if values.get(key)
    }


def _percent(share: Any) -> Any:
    if isinstance(share, dict):
        return {name: _percent(part) for name, part in share.items()}
    return f"{100 * share:.1f} %"


def _print_rows(title: str, rows: dict[str, Any]) -> None:
    print_facts(options.output(), title, {key: _text(value) for key, value in rows.items()})


def _text(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{name}: {_text(number)}" for name, number in value.items())
        case float():
            return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.4f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
