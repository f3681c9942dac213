"""``fedsi evaluate``: evaluation of a trained model, by sentences and at any length."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedsi.errors import UserError
from simulations.cli import options, studies
from simulations.cli.display import Display
from simulations.cli.wide_table import print_table

if TYPE_CHECKING:
    from fedsi.data.population import Population
    from fedsi.tasks.task import Task
    from server.runs.summary import PersonalisationSummary
    from simulations.evaluation import LengthScore, Score
    from simulations.finished_run import FinishedRun


def evaluate(
    run: options.RunFolderArgument,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH,...",
            help="Evaluate at these lengths: of sequences into which each client's sentences are "
            "packed, or of examples that the task makes.",
        ),
    ] = None,
    clients: Annotated[
        str | None,
        typer.Option(metavar="all", help="All held-out clients, not the run's sample of them."),
    ] = None,
    per_client: options.PerClient = None,
    personalise: Annotated[
        bool,
        typer.Option(help="Also fine-tune the model on half of each client's examples."),
    ] = False,
    corpus: options.MovedCorpus = None,
    as_json: options.Json = False,
    trust: options.Trust = False,
    best: options.Best = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Evaluate a trained model on the held-out clients of its corpus."""
    from fedsi.data.generated import GeneratedPopulation
    from fedsi.inference.ranking import refuse_labels
    from fedsi.tasks.table import task_of
    from server.runs.summary import to_json
    from simulations.evaluation import (
        evaluate_lengths,
        evaluate_made_lengths,
        evaluate_personalised,
        evaluate_sentences,
        made_score_json,
        metrics_json,
        open_heldout,
        score_json,
    )
    from simulations.finished_run import open_run
    from simulations.per_client import check_file, write_table
    from simulations.per_client import per_client as clients_table

    if clients not in {None, "all"}:
        raise UserError(f"--clients {clients} is not allowed: give all, or leave it out")
    if per_client:
        check_file(per_client)
    with Display(options.messages()) as display:
        finished = open_run(run, trust=trust, best=best)
        population = open_heldout(finished, cache, display.step, corpus)
        scores, made = [], {}
        if lengths and isinstance(population, GeneratedPopulation):
            texts = studies.parse_list(lengths, str.strip, "--lengths")
            made = evaluate_made_lengths(finished, population, texts, display.step)
        elif lengths:
            refuse_labels(finished.trained, "--lengths")
            wanted = studies.parse_lengths(lengths, "--lengths")
            scores = evaluate_lengths(finished, population, wanted, display.step)
        chosen = _chosen(clients, finished, population)
        sentences = evaluate_sentences(finished, population, display.step, chosen)
        if per_client:
            table = clients_table(
                finished.experiment, finished.flat, population, chosen, display.step
            )
            write_table(table, per_client)
        tuned = (
            evaluate_personalised(finished, population, chosen, display.step)
            if personalise
            else None
        )
    if as_json:
        found = {
            "run": str(run),
            **{f"heldout_{name}": value for name, value in metrics_json(sentences).items()},
            "trained_length": population.description.sequence_length,
            "lengths": [score_json(score) for score in scores]
            + [made_score_json(length, score) for length, score in made.items()],
            **({"personalisation": to_json(tuned)} if tuned else {}),
        }
        typer.echo(json.dumps(found, allow_nan=False))
    else:
        task = task_of(finished.experiment)
        _show(task, sentences, scores, finished)
        if made:
            _print(options.output(), task, "On new examples of each length", made)
        _show_personalisation(tuned)


def _chosen(clients: str | None, run: "FinishedRun", population: "Population") -> list[int]:
    """Return the clients to evaluate: all held-out ones, or those that the run evaluates."""
    from fedsi.data.heldout import heldout_sample
    from server.rounds import evaluated_clients

    description = population.description
    if clients == "all":
        return list(heldout_sample(description, description.heldout_clients).tolist())
    return list(evaluated_clients(run.experiment, description).tolist())


def _show(
    task: "Task", sentences: "Score", scores: list["LengthScore"], run: "FinishedRun"
) -> None:
    console, trained = options.output(), run.experiment.data.sequence_length
    rows = {str(score.length): score.whole for score in scores}
    _print(console, task, "On held-out clients", {"sentence": sentences, **rows})
    if scores:
        far = {str(score.length): score.beyond for score in scores if score.beyond.tokens}
        _print(console, task, f"At positions beyond the {trained} of training", far)


def _show_personalisation(tuned: "PersonalisationSummary | None") -> None:
    if tuned is None:
        return
    title = f"Fine-tuned on half of a client's examples, epochs {tuned.epochs}; over clients"
    quantiles = list(next(iter(tuned.quantiles.values())))
    rows = [
        (name.replace("_", " "), *("-" if v is None else f"{v:.4f}" for v in values.values()))
        for name, values in tuned.quantiles.items()
    ]
    console = options.output()
    print_table(console, title, ("", *quantiles), rows)
    console.print(
        f"{tuned.clients} clients; {tuned.clients_too_small} are too small to have examples on "
        f"both sides, {tuned.clients_unevaluated} failed"
    )


def _print(console: Console, task: "Task", title: str, scores: dict[str, "Score"]) -> None:
    rows = [
        (name, f"{score.tokens:,}", *(_number(score.metrics[metric]) for metric in task.shown))
        for name, score in scores.items()
    ]
    print_table(console, title, ("length", "tokens", *task.shown.values()), rows)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
