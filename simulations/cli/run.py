"""``fedsi run``: one experiment."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from simulations.cli import options
from simulations.cli.display import Display
from simulations.engines.table import ENGINES, USUAL
from simulations.safe_text import one_line

if TYPE_CHECKING:
    from fedsi.data.baselines import Baselines
    from fedsi.experiment import Experiment
    from fedsi.tasks.task import Task
    from server.rounds import Observer, RoundRecord
    from server.runs.summary import PersonalisationSummary, PrivacySummary, Summary

_BEFORE = {
    "status": "status",
    "architecture": "architecture",
    "parameters": "parameters",
    "trained_parameters": "parameters trained",
    "rounds": "rounds",
    "clients_trained": "clients trained",
    "clients_rejected": "clients rejected",
    "clients_failed": "clients failed",
    "clients_dropped": "clients dropped",
    "kept_bytes": "bytes that clients keep",
    "tokens_trained": "tokens trained",
}
"""Labels of what is shown before the metrics."""
_AFTER = {
    "corpus": "corpus",
    "corpus_sha256": "corpus SHA-256",
    "vocabulary_size": "vocabulary",
    "vocabulary_source": "vocabulary chosen by",
    "population": "population",
    "train_seconds": "training seconds",
    "clients_per_second": "clients per second",
    "tokens_per_second": "tokens per second",
    "model_sha256": "model SHA-256",
}


def run(
    experiment_file: options.ExperimentFile = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Node processes; they do not affect the result.")
    ] = 1,
    engine: Annotated[
        str, typer.Option(metavar="|".join(ENGINES), help="Where the nodes run.")
    ] = USUAL,
    out: options.Out = None,
    per_client: options.PerClient = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    other_machine: Annotated[
        bool,
        typer.Option(
            "--other-machine",
            help="Resume even if the bits differ: another processor, other versions.",
        ),
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(
            "--init-from",
            metavar="RUN|FILE",
            help="Start from a run's weights, word by word; the same as --set model.init_from=RUN.",
        ),
    ] = None,
    trust: options.Trust = False,
    publish: options.Publish = None,
    heldout_is_public: options.HeldoutIsPublic = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Run one federated training and write its folder."""
    from fedsi.tasks.table import task_of
    from server.runs.folder import EXPERIMENT
    from simulations.simulation import simulate

    options.check_publish(publish, heldout_is_public=heldout_is_public)
    if init_from:
        overrides = [*(overrides or []), f"model.init_from={init_from}"]
    folder = out or options.default_folder("run")
    named = experiment_file or preset or (overrides and not (folder / EXPERIMENT).exists())
    experiment = (
        options.experiment_of_run(folder, overrides, trust=trust)
        if resume and not named
        else options.chosen_experiment(experiment_file, preset, overrides, trust=trust)
    )
    if per_client:
        from simulations.per_client import check_file

        check_file(per_client)
    if publish:
        from simulations.publish import check_publishable

        check_publishable(experiment, publish, heldout_is_public=heldout_is_public)
    console = options.messages()
    try:
        with Display(console) as display:
            result = simulate(
                experiment,
                workers=workers,
                engine=engine,
                out=folder,
                overwrite=overwrite,
                resume=resume,
                other_machine=other_machine,
                cache=cache,
                on_corpus=partial(display.corpus, experiment),
                on_round=shown_on(display),
                progress=display.step,
            )
    except KeyboardInterrupt:
        started = (folder / EXPERIMENT).exists()
        go_on = (
            f"continue with: fedsi run --resume --out {folder}"
            if started
            else "nothing has run yet"
        )
        raise options.StoppedError(f"interrupted; {go_on}") from None
    if per_client:
        from simulations.per_client import write_table

        write_table(result.clients, per_client)
    if as_json:
        typer.echo(json.dumps(result.summary.to_json(), allow_nan=False))
    else:
        options.output().print(_table(result.summary, task_of(experiment), result.baselines))
    console.print(f"results are in {one_line(str(folder))}", highlight=False, soft_wrap=True)
    if publish:
        from simulations.finished_run import open_run
        from simulations.publish import publish as publish_run

        run = open_run(folder, trust=True)  # its own code has just run
        publish_run(run, publish, {}, heldout_is_public=heldout_is_public)
        console.print(f"published to {one_line(str(publish))}", highlight=False, soft_wrap=True)


def shown_on(display: Display) -> "Observer":
    """Return an observer that shows each round when it ends."""
    records: list[RoundRecord] = []

    def on_round(experiment: "Experiment", record: "RoundRecord") -> None:
        records.append(record)
        display.rounds(experiment.model.architecture, records, experiment.server.rounds)

    return on_round


def _table(summary: "Summary", task: "Task", baselines: "Baselines | None") -> Table:
    values = summary.to_json()
    metrics = {
        name if name in values else f"heldout_{name}": f"held-out {label}"
        for name, label in task.shown.items()
    }
    table = Table(show_header=False, title="Summary", title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    for key, label in {**_BEFORE, **metrics, **_AFTER}.items():
        if key not in values:  # what the run has nothing of
            continue
        value = values[key]
        text = "not a number" if value is None else value
        if isinstance(value, float):
            text = f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"
        elif isinstance(value, int):
            text = f"{value:,}"
        table.add_row(label, str(text))
    if baselines is not None:
        for name in ("bigram", "trigram"):
            scores = f"{baselines.loss(name):.4f}, word accuracy {baselines.accuracy(name):.4f}"
            table.add_row(f"{name} model's loss", scores)
        table.add_row("verdict", baselines.better_than(summary.heldout_loss))
    for label, words in _privacy(summary.privacy).items():
        table.add_row(label, words)
    if summary.personalisation:
        table.add_row("fine-tuned on held-out clients", _gain(summary.personalisation))
    return table


def _gain(tuned: "PersonalisationSummary") -> str:
    """Return the loss before and after fine-tuning, and of how many clients."""
    losses = (tuned.before["loss"], tuned.after["loss"])
    words = ("not a number" if loss is None else f"{loss:.4f}" for loss in losses)
    return f"loss {' -> '.join(words)} of {tuned.clients} clients ({tuned.clients_too_small} small)"


def _privacy(claim: "PrivacySummary | None") -> dict[str, str]:
    """Return the claim of a private run, and which participations were checked."""
    if claim is None:
        return {}
    epsilon = "infinite" if claim.epsilon is None else f"{claim.epsilon:.4g}"
    rows = {
        "epsilon": f"{epsilon} at delta {claim.delta:.3g}, {claim.adjacency} ({claim.accountant})"
    }
    found = claim.participations
    if found is None:
        return rows
    happened = f"at most {found.most}"
    if found.closest:
        happened += f", at least {found.closest} rounds apart"
    if found.most_allowed:
        happened += f" (allowed: {found.most_allowed}, {found.closest_allowed} rounds apart)"
    return {
        **rows,
        "participations of a client": happened,
        "participations checked for": found.checked,
    }
