"""Writing of a study's report: table, figure, page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from fedsi.files import write_atomically
from simulations.reports.figures import save_figure, svg
from simulations.reports.lengths import (
    lengths_figure,
    lengths_findings,
    lengths_markdown,
    lengths_table,
)
from simulations.reports.study_figure import study_figure
from simulations.reports.study_table import study_json, study_table
from simulations.reports.study_words import axis_words, enumerate_words, words
from simulations.reports.tradeoff_figure import tradeoff_figure
from simulations.reports.verdicts import findings
from simulations.safe_text import for_spreadsheet
from simulations.studies.results import StudyResult, TrialResult

PAGE = "report.html"


@dataclass(frozen=True)
class Report:
    """The report of a study."""

    title: str
    table_title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    figure: Figure
    caption: str
    findings: Sequence[str]
    changes: str
    """The keys that its runs vary, in words."""
    values: dict[str, Any]
    """The result in values that JSON can represent."""


def study_report(result: StudyResult, failures: Mapping[str, str]) -> Report:
    """Return the report of a study.

    Args:
        result: The finished trials.
        failures: Reasons of the trials that did not finish.
    """
    told, values = findings(result), study_json(result)
    header, rows = study_table(result)
    table_title = f"Held-out loss (nats per token), {_clients(result)}"
    if result.study.lengths:
        told = [*lengths_findings(result), *told]
        header, rows = lengths_table(result)
        table_title = "Held-out loss (nats per token) by sequence length"
    if failures:
        named = "; ".join(f"{name} ({why})" for name, why in failures.items())
        told = [*told, f"Not finished, and in none of these numbers: {named}."]
        values = {**values, "not_finished": dict(failures)}
    figure, caption = _figure(result)
    changed = [axis_words(axis.called) for axis in result.study.axes]
    return Report(
        title=_title(result),
        table_title=table_title,
        header=header,
        rows=rows,
        figure=figure,
        caption=caption,
        findings=told,
        changes=enumerate_words([*changed, "seed"]),
        values=values,
    )


def write_study(report: Report, result: StudyResult, folder: Path) -> None:
    """Write the study's ``.csv``, ``.json``, ``.png``, ``.svg`` and ``report.html``."""
    path = folder / result.study.name
    table = result.table().map(for_spreadsheet)
    write_atomically(path.with_suffix(".csv"), table.to_csv(index=False).encode())
    text = json.dumps(report.values, indent=1, allow_nan=False)
    write_atomically(path.with_suffix(".json"), text.encode())
    table_text = lengths_markdown(report.title, report.header, report.rows, report.findings)
    write_atomically(path.with_suffix(".md"), table_text.encode())
    save_figure(report.figure, path)
    write_atomically(folder / PAGE, _page(report, result).encode())


def _title(result: StudyResult) -> str:
    corpus = result.summary.corpus
    if any(result.arms):
        return f"{enumerate_words([words(arm) for arm in result.arms])} on {corpus}"
    varied = [axis_words(axis.called) for axis in result.study.axes]
    return f"{enumerate_words(varied or ['One experiment'])} on {corpus}"


def _clients(result: StudyResult) -> str:
    return "all evaluated clients" if result.part == "all" else "test clients"


def _figure(result: StudyResult) -> tuple[Figure, str]:
    bars = "Bars are 95 % intervals over seeds; a cross marks a setting in which a run diverged."
    if result.study.lengths:
        return lengths_figure(result), (
            "Held-out loss against sequence length over all targets (left) and over those at "
            "positions beyond those of training (right; those are other targets at each length). "
            "Bands reach from the best to the worst seed."
        )
    if result.privacy_levels and len(result.privacy_levels) == len(result.levels):
        return tradeoff_figure(result), (
            "Final held-out loss (above) and score (below) against epsilon (left) and against the "
            "standard deviation of the noise on the mean update (right). Axes are logarithmic; "
            f"without noise, beyond the dashed line, epsilon is infinite. {bars}"
        )
    return study_figure(result), (
        "Held-out loss of all evaluated clients over rounds (left), and final held-out loss over "
        f"what was varied. {bars}"
    )


def _page(report: Report, result: StudyResult) -> str:
    environment = Environment(
        loader=PackageLoader("simulations.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
    )
    figure, summary = svg(report.figure), result.summary
    return environment.get_template("report.html.jinja").render(
        report=report,
        figure=figure[figure.index("<svg") :],
        score=result.task.shown[result.task.score],
        runs=[_run(one) for one in result.results],
        experiment=result.study.experiment.to_toml(),
        corpus=summary.corpus,
        corpus_sha256=summary.corpus_sha256,
        versions=", ".join(f"{name} {value}" for name, value in summary.versions.items()),
    )


def _run(result: TrialResult) -> dict[str, Any]:
    summary = result.summary
    score = summary.heldout[result.task.score]
    return {
        "name": result.name,
        "status": summary.status,
        "rounds": summary.rounds,
        "loss": "" if result.diverged else f"{summary.heldout_loss:.3f}",
        "score": "" if result.diverged or score is None else f"{score:.3f}",
        "speed": f"{summary.clients_per_second:.1f}",
        "sha256": summary.model_sha256[:16],
    }
