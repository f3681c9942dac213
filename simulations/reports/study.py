"""Writing of a study's report: table, figure, page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedsi.files import write_atomically
from server.runs.degree import degree
from server.runs.folder import SUMMARY
from simulations.reports.by_length import LengthsPart, by_length
from simulations.reports.commands import study_command
from simulations.reports.figures import save_figure
from simulations.reports.findings import findings, headlines
from simulations.reports.heat_map import mapped_axes
from simulations.reports.lengths import (
    length_verdicts,
    lengths_figure,
    lengths_findings,
    lengths_markdown,
    lengths_table,
)
from simulations.reports.page import (
    Illustration,
    Page,
    PageTable,
    day_of,
    panels_of,
    write_page,
)
from simulations.reports.rates import (
    MEANING,
    RATES_CAPTION,
    rates_figure,
    rates_table,
    rates_verdicts,
)
from simulations.reports.study_figure import differences_shown, panel_axes, study_figure
from simulations.reports.study_table import naming_columns, study_json, study_table
from simulations.reports.study_words import axis_words, enumerate_words, legend_title, values_text
from simulations.reports.tradeoff_figure import at_equal_epsilon, same_noise, tradeoff_figure
from simulations.reports.verdicts import too_many_without_claim
from simulations.safe_text import for_spreadsheet
from simulations.studies.results import RUNS, StudyResult, TrialResult
from simulations.studies.study import RATE


@dataclass(frozen=True)
class Report:
    """The report of a study."""

    title: str
    table_title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    named: int
    """Number of leading columns that name a row."""
    figure: Figure
    caption: str
    verdicts: Sequence[str]
    findings: Sequence[str]
    shown: Sequence[str]
    """The findings for a terminal, which sum up many differences without a claim."""
    changes: str
    """The keys that its runs vary, in words."""
    values: dict[str, Any]
    """The result in values that JSON can represent."""
    made: LengthsPart | None = None
    """The scores at the lengths of ``task.grid``, if there are any."""


def study_report(result: StudyResult, failures: Mapping[str, str]) -> Report:
    """Return the report of a study.

    Args:
        result: The finished trials.
        failures: Reasons of the trials that did not finish.
    """
    values, main, made = study_json(result), _main_part(result), by_length(result)
    verdicts, first, last = main.verdicts, [*main.findings], []
    if made:
        verdicts, first = [made.verdict, *verdicts], [made.verdict, *first]
    if result.study.suggest:
        values = {**values, "suggested": {k: list(v) for k, v in result.suggested.items()}}
    if failures:
        named = "; ".join(f"{name} ({why})" for name, why in failures.items())
        last = [f"Not finished, and in none of these numbers: {named}."]
        values = {**values, "not_finished": dict(failures)}
    values = {**values, "question": result.study.question, "verdicts": list(verdicts)}
    figure, caption = _figure(result)
    changed = [axis.called for axis in result.study.axes]
    return Report(
        title=_title(result),
        table_title=main.title,
        header=main.header,
        rows=main.rows,
        named=main.named,
        figure=figure,
        caption=caption,
        verdicts=verdicts,
        findings=[*first, *findings(result), *last],
        shown=[*first, *findings(result, brief=too_many_without_claim(result)), *last],
        changes=enumerate_words([*changed, "seed"]),
        values=values,
        made=made,
    )


@dataclass(frozen=True)
class _Part:
    """The main table of a study, and what it shows."""

    verdicts: Sequence[str]
    findings: Sequence[str]
    """Findings before those of every study."""
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    named: int = 1


def _main_part(result: StudyResult) -> _Part:
    if result.study.lengths:
        return _Part(
            [*length_verdicts(result), *headlines(result)],
            lengths_findings(result),
            "Held-out loss (nats per token) by sequence length, all evaluated clients",
            *lengths_table(result),
        )
    if result.study.suggest:
        title = f"Client learning rates, and what they cost in nats per token, {_clients(result)}"
        return _Part(rates_verdicts(result), [MEANING], title, *rates_table(result))
    title, named = f"Held-out loss (nats per token), {_clients(result)}", naming_columns(result)
    return _Part(headlines(result), [], title, *study_table(result), named)


def write_study(report: Report, result: StudyResult, folder: Path) -> None:
    """Write the study's ``.csv``, ``.json``, ``.png``, ``.svg`` and ``report.html``."""
    path = folder / result.study.name
    table = result.table().map(for_spreadsheet)
    write_atomically(path.with_suffix(".csv"), table.to_csv(index=False).encode())
    text = json.dumps(report.values, indent=1, allow_nan=False)
    write_atomically(path.with_suffix(".json"), text.encode())
    table_text = lengths_markdown(report.title, report.header, report.rows, report.findings)
    if report.made:
        table_text += lengths_markdown(report.made.title, report.made.header, report.made.rows, [])
        save_figure(report.made.figure, path.with_name(f"{path.name}-lengths"))
    write_atomically(path.with_suffix(".md"), table_text.encode())
    save_figure(report.figure, path)
    runs = [folder / RUNS / one.name / SUMMARY for one in result.results]
    write_page(study_page(report, result, day_of(*runs)), folder)


def _title(result: StudyResult) -> str:
    corpus = enumerate_words(list(dict.fromkeys(one.summary.corpus for one in result.results)))
    if result.study.suggest:
        varied = [axis_words(a.called) for a in result.study.axes if a.called != RATE]
        return f"Learning rates by {enumerate_words(varied or ['seed'])} on {corpus}"
    if any(result.arms):
        keys, named = legend_title(result.arms), [values_text(arm) for arm in result.arms]
        return f"{keys + ': ' if keys else ''}{enumerate_words(named)} on {corpus}"
    varied = [axis_words(axis.called) for axis in result.study.axes]
    return f"{enumerate_words(varied or ['One experiment'])} on {corpus}"


def _clients(result: StudyResult) -> str:
    return "all evaluated clients" if result.part == "all" else "test clients"


def _figure(result: StudyResult) -> tuple[Figure, str]:
    bars = (
        "Bars are 95 % intervals over seeds; a cross in the coloured strip at the edge marks a "
        "setting in which a run diverged."
    )
    if result.study.lengths:
        return lengths_figure(result), (
            "Held-out loss of all evaluated clients against sequence length, over all targets "
            "(left) and over those at positions beyond those of training (right; those are other "
            "targets at each length). Bands reach from the best to the worst seed that did not "
            "diverge."
        )
    if result.study.suggest:
        return rates_figure(result), RATES_CAPTION
    if at_equal_epsilon(result):
        noise = (
            ", with the standard deviation of the noise on the mean update in brackets"
            if same_noise(result)
            else ""
        )
        return tradeoff_figure(result), (
            f"Final held-out loss and {result.task.title.lower()} against epsilon{noise}. The axis "
            f"is logarithmic; without noise, beyond the dashed line, epsilon is infinite. {bars}"
        )
    if mapped_axes(result):
        return study_figure(result), (
            "Held-out loss of all evaluated clients over rounds (left), with the chosen setting in "
            "colour, and the final held-out loss of each pair of values (right): the darker, the "
            "lower. Grey cells are not better than the unigram model, diverged or did not finish. "
            "The framed one was chosen on validation clients."
        )
    apart = ""
    if differences_shown(result):
        apart = (
            f" The second panel has the difference to {values_text(result.arms[0])} within a seed: "
            "the mean over seeds, with a band of 95 % intervals if there are three or more. Arms "
            "of which a seed diverged are not in it."
        )
    over_rounds = "Held-out loss of all evaluated clients over rounds, a line for each seed"
    if not panel_axes(result):
        return study_figure(result), (
            f"{over_rounds}.{apart} A cross in the coloured strip at the edge marks a run that "
            "diverged."
        )
    early = f"held-out loss after {result.study.first_rounds} rounds"
    what = "final held-out loss" if result.of_equal_rounds is result else early
    return study_figure(result), f"{over_rounds}; {what} over what was varied.{apart} {bars}"


def study_page(report: Report, result: StudyResult, day: str) -> Page:
    """Return the page of a study.

    Args:
        report: Its report.
        result: Its finished trials.
        day: The day on which the last of them ended.
    """
    summary, study = result.summary, result.study
    versions = ", ".join(f"{name} {value}" for name, value in summary.versions.items())
    corpora = dict.fromkeys(
        f"Corpus {one.summary.corpus}, SHA-256 {one.summary.corpus_sha256}."
        for one in result.results
    )
    suffixes = (".csv", ".json", ".md", ".png", ".svg")
    made = report.made
    figures = [Illustration(panels_of(made.figure), made.caption)] if made else []
    tables = [PageTable(made.title, made.header, made.rows)] if made else []
    extra = [f"{study.name}-lengths{suffix}" for suffix in suffixes[3:]] if made else []
    return Page(
        title=report.title,
        kind="Study",
        date=day,
        verdict=[*report.verdicts, *_unequal_sizes(result)],
        experiment=study.experiment,
        figures=[*figures, Illustration(panels_of(report.figure), report.caption)],
        tables=[
            *tables,
            PageTable(report.table_title, report.header, report.rows),
            PageTable("Runs", _runs_header(result), [_run(one) for one in result.results]),
        ],
        details=[one for one in report.findings if one not in report.verdicts],
        methods=[
            *([f"Question: {study.question}"] if study.question else []),
            f"Varied: {report.changes}. All other keys are those of the experiment below.",
        ],
        command=study_command(study),
        files=[*(f"{study.name}{suffix}" for suffix in suffixes), *extra],
        facts=[*corpora, f"{versions}."],
    )


def _unequal_sizes(result: StudyResult) -> list[str]:
    """Warn of models of different sizes, whose losses say little about their architectures."""
    first = [one for one in result.places if one.level == result.levels[0]]
    sizes = {
        values_text(place.arm): one.summary.parameters
        for place in first
        for one in result.all_seeds(place)[:1]
    }
    if not sizes or max(sizes.values()) <= _SIMILAR * min(sizes.values()):
        return []
    named = enumerate_words([f"{name} has {size:,}" for name, size in sizes.items()])
    return [f"The models differ in size: {named} parameters."]


_SIMILAR = 1.1
"""Largest ratio of the sizes of models that are compared without a warning."""


def _runs_header(result: StudyResult) -> list[str]:
    score = result.task.shown[result.task.score]
    first = ["run", "status", "parameters", "rounds", "held-out loss"]
    return [*first, score, "clients/s", "model SHA-256", "remark"]


def _run(result: TrialResult) -> list[str]:
    summary = result.summary
    score = summary.heldout[result.task.score]
    return [
        result.name,
        summary.status,
        f"{summary.parameters:,}",
        str(summary.rounds),
        "" if result.diverged else f"{summary.heldout_loss:.3f}",
        "" if result.diverged or score is None else f"{score:.3f}",
        f"{summary.clients_per_second:.1f}",
        summary.model_sha256[:16],
        degree(summary),
    ]
