"""The page of a run: its metrics, its costs, and its experiment, corpus and versions."""

import math
from collections.abc import Sequence
from pathlib import Path

from fedsi.data.baselines import Baselines
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.tasks.table import task_of
from fedsi.tasks.task import Task
from server.round_record import RoundRecord
from server.runs.degree import degree
from server.runs.folder import SUMMARY, RunFolder
from server.runs.summary import PrivacySummary, Summary
from simulations.kept_results import kept_baselines
from simulations.losses import by_words
from simulations.reports.commands import run_command
from simulations.reports.figures import label, run_curves, save_figure
from simulations.reports.page import Illustration, Page, PageTable, day_of, panels_of, write_page

FILES = ("summary.json", "rounds.csv", "curves.png", "curves.svg", "model.safetensors")


def write_run_page(folder: Path) -> None:
    """Write the page of a finished run from what its folder holds.

    Raises:
        UserError: A file is damaged.
    """
    run = RunFolder(folder)
    summary = finished_summary(run)
    day = day_of(folder / SUMMARY)
    counted = kept_baselines(folder)
    write_page(run_page(run.experiment(), summary, run.records(), counted, day), folder)


def write_curves(folder: Path) -> None:
    """Write the curves of a finished run, ``curves.png`` and ``.svg``."""
    run = RunFolder(folder)
    task, summary = task_of(run.experiment()), finished_summary(run)
    figure = run_curves(run.records(), summary, task, kept_baselines(folder))
    save_figure(figure, folder / "curves")


def finished_summary(run: RunFolder) -> Summary:
    """Return the summary of a finished run.

    Raises:
        UserError: The run is not finished, or a file is damaged.
    """
    summary = run.summary()
    if summary is None:
        raise UserError(
            f"the run in {run.path} is not finished; finish it with: fedsi run --resume --out "
            f"{run.path}"
        )
    return summary


def run_page(
    experiment: Experiment,
    summary: Summary,
    records: Sequence[RoundRecord],
    baselines: Baselines | None,
    day: str,
) -> Page:
    """Return the page of a finished run.

    Args:
        experiment: The run's experiment.
        summary: Its summary.
        records: Its rounds.
        baselines: N-gram models on the same targets; None if they were not counted.
        day: The day on which it ended.
    """
    task = task_of(experiment)
    name = label(summary.architecture)
    figure = run_curves(records, summary, task, baselines)
    return Page(
        title=f"{name} on {summary.corpus}",
        kind="Run",
        date=day,
        verdict=[
            _result(name, summary, baselines, summary.heldout.get(task.score)),
            *_privacy(summary.privacy),
        ],
        experiment=experiment,
        figures=[
            Illustration(
                panels_of(figure),
                "Loss of each round's cohort, before its training, and of the held-out clients; "
                f"held-out {task.title.lower()}.",
            )
        ],
        tables=[
            _scores(records, summary, baselines, dict(task.curves)),
            *length_tables(summary, task),
            _costs(summary),
        ],
        methods=[
            f"{summary.training_clients:,} clients trained the model and "
            f"{summary.heldout_clients:,} were held out; each round sampled "
            f"{experiment.server.cohort_size:,}. {told_how_repeatable(experiment)}",
        ],
        command=run_command(experiment),
        files=FILES,
        facts=facts_of(summary),
    )


def told_how_repeatable(experiment: Experiment) -> str:
    """Return whether the same command gives the same bits, in words."""
    if experiment.privacy.secure_noise:
        return (
            "Its noise and its cohorts come from a secret that was deleted, so that no run repeats "
            "its bits."
        )
    return (
        f"The seed is {experiment.seed}: the same experiment gives the same bits on this kind of "
        "processor, whatever the number of workers."
    )


def facts_of(summary: Summary) -> list[str]:
    """Return the corpus, the model and the versions of a run, a sentence each."""
    return [
        f"Corpus {summary.corpus}, SHA-256 {summary.corpus_sha256}.",
        f"Model SHA-256 {summary.model_sha256}.",
        ", ".join(f"{package} {version}" for package, version in summary.versions.items()) + ".",
    ]


def _result(name: str, summary: Summary, baselines: Baselines | None, score: float | None) -> str:
    loss = summary.heldout_loss
    after = f"{name} with {summary.parameters:,} parameters, after {summary.rounds:,} rounds"
    if summary.diverged or loss is None:
        return f"{after}, diverged: {degree(summary) or 'its loss has no meaning'}."
    reached = f"{after}, has a held-out loss of {loss:.3f} nats per token"
    if degree(summary):
        return f"{reached}: {degree(summary)}."
    if baselines:
        return f"{reached}: {baselines.better_than(loss, score)}."
    unigram = summary.unigram_loss
    if unigram is None:
        return f"{reached}."
    side = "below" if loss < unigram else "above"
    return f"{reached}, {abs(loss - unigram):.3f} {side} the unigram model's."


def _privacy(claim: PrivacySummary | None) -> list[str]:
    if claim is None:
        return ["The run is not private: no clipping and no noise protect its clients."]
    if claim.epsilon is None:
        return ["Its updates were clipped, but no noise was added: epsilon is infinite."]
    stands = " It is an extrapolation to that cohort and population." if claim.extrapolated else ""
    return [
        f"It costs each client epsilon {claim.epsilon:.3f} at delta {claim.delta:.2g} "
        f"({claim.mechanism} noise, {claim.sampling} cohorts of {claim.cohort_size:,} from "
        f"{claim.population:,} clients, {claim.accountant}).{stands}"
    ]


def _scores(
    records: Sequence[RoundRecord],
    summary: Summary,
    baselines: Baselines | None,
    shares: dict[str, str],
) -> PageTable:
    header = ["model", "loss", *shares.values()]
    values = [summary.heldout.get(metric) for metric in ("loss", *shares)]
    rows = [[label(summary.architecture), *(_three(value) for value in values)]]
    before = records[0].heldout if records and records[0].round == 0 else None
    if before:
        told = "its initial weights" if summary.warm_start else "the same, untrained"
        rows.append([told, *(_three(before[metric]) for metric in ("loss", *shares))])
    blank = [""] * (len(shares) - 1)
    if baselines and baselines.ranks_labels:
        rows += [[n, "", _three(baselines.accuracy(n)), *blank] for n in baselines.names]
    elif baselines:
        rows += [[f"{n} model", _three(baselines.loss(n)), "", *blank] for n in baselines.names]
    else:
        rows.append(["unigram model", _three(summary.unigram_loss), *([""] * len(shares))])
    return PageTable("Held-out clients", header, rows)


def length_tables(summary: Summary, task: Task) -> list[PageTable]:
    """Return the table over the lengths of ``task.grid``; none if there are none."""
    if not summary.by_length:
        return []
    what = task.generation.what if task.generation else "length"
    rows = [
        [length, *(_three(summary.by_length[name][length]) for name in task.shown)]
        for length in summary.by_length[task.score]
    ]
    header = ["length", *task.shown.values()]
    return [PageTable(f"New examples of each length ({what})", header, rows)]


def _costs(summary: Summary) -> PageTable:
    rows = [
        ["clients trained", f"{summary.clients_trained:,}"],
        ["contributions lost", f"{sum(summary.losses.values()):,}"],
        *([f"of these: {words}", f"{n:,}"] for words, n in by_words(summary.losses).items()),
        ["rounds repeated", f"{summary.rounds_repeated:,}"],
        ["tokens trained on", f"{summary.tokens_trained:,}"],
        ["bytes to the clients", f"{summary.download_bytes:,}"],
        ["bytes from the clients", f"{summary.upload_bytes:,}"],
        *_clipped(summary),
        ["seconds of training", f"{summary.train_seconds:,.1f}"],
        ["clients per second", f"{summary.clients_per_second:,.1f}"],
    ]
    return PageTable("Cost", ["", "whole run"], rows)


def _clipped(summary: Summary) -> list[list[str]]:
    """Return the shares that clipping touched; epsilon does not cover them."""
    shares = {}
    if summary.clipped_steps_share is not None:
        shares["local steps whose gradient was clipped"] = summary.clipped_steps_share
    if summary.privacy:
        shares["updates that were clipped"] = summary.privacy.clipped_share
    beside = " (not private)" if summary.privacy else ""
    return [[f"{name}{beside}", f"{100 * share:.1f} %"] for name, share in shares.items()]


def _three(value: float | None) -> str:
    return f"{value:.3f}" if value is not None and math.isfinite(value) else "not finite"
