"""Writes what a study leaves: table, figure, page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from fedsi.experiment import Experiment
from fedsi.files import write_atomically
from server.runs.summary import Summary
from simulations.reports.figures import save_figure, svg
from simulations.studies.grid import ACCURACY
from simulations.text import for_spreadsheet

PAGE = "report.html"


class ReportedRun(Protocol):
    """A run as a page lists it."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        ...

    @property
    def summary(self) -> Summary:
        """What it came to."""
        ...

    @property
    def diverged(self) -> bool:
        """Whether its loss left all bounds."""
        ...

    @property
    def loss(self) -> float:
        """Final held-out loss, in nats per token."""
        ...


class Reported(Protocol):
    """What a study hands to its page."""

    @property
    def results(self) -> Sequence[ReportedRun]:
        """Its runs."""
        ...

    @property
    def summary(self) -> Summary:
        """Of the first run, for what is the same in all."""
        ...

    def table(self) -> pd.DataFrame:
        """Return what the ``.csv`` holds."""
        ...


@dataclass(frozen=True)
class Report:
    """What is told about a study."""

    kind: str
    """What it is, in words."""
    stem: str
    """The names of its files, without suffix."""
    title: str
    table_title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    figure: Figure
    caption: str
    findings: Sequence[str]
    changes: str
    """What its runs change of the experiment, in words."""
    values: dict[str, Any]
    """The result as values that JSON can hold."""


def with_failures(report: Report, failures: Mapping[str, str]) -> Report:
    """Return the report of a study that also says which runs did not finish, and why.

    Args:
        report: Of those that did.
        failures: Why, by run.
    """
    if not failures:
        return report
    named = "; ".join(f"{name} ({why})" for name, why in failures.items())
    sentence = f"Not finished, and in none of these numbers: {named}."
    return replace(
        report,
        findings=[*report.findings, sentence],
        values={**report.values, "not_finished": dict(failures)},
    )


def write_report(report: Report, study: Reported, base: Experiment, folder: Path) -> None:
    """Write the study's ``.csv``, ``.json``, ``.png``, ``.svg`` and ``report.html``."""
    path = folder / report.stem
    table = study.table().map(for_spreadsheet)
    write_atomically(path.with_suffix(".csv"), table.to_csv(index=False).encode())
    text = json.dumps(report.values, indent=1, allow_nan=False)
    write_atomically(path.with_suffix(".json"), text.encode())
    save_figure(report.figure, path)
    write_atomically(folder / PAGE, _page(report, study, base).encode())


def _page(report: Report, study: Reported, base: Experiment) -> str:
    environment = Environment(
        loader=PackageLoader("simulations.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
    )
    figure, summary = svg(report.figure), study.summary
    return environment.get_template("report.html.jinja").render(
        report=report,
        figure=figure[figure.index("<svg") :],
        runs=[_run(result) for result in study.results],
        experiment=base.to_toml(),
        corpus=summary.corpus,
        corpus_sha256=summary.corpus_sha256,
        versions=", ".join(f"{name} {value}" for name, value in summary.versions.items()),
    )


def _run(result: ReportedRun) -> dict[str, Any]:
    summary = result.summary
    good = not result.diverged
    return {
        "name": result.name,
        "status": summary.status,
        "rounds": summary.rounds,
        "loss": f"{result.loss:.3f}" if good else "",
        "accuracy": f"{summary.metric(ACCURACY):.3f}" if good else "",
        "speed": f"{summary.clients_per_second:.1f}",
        "sha256": summary.model_sha256[:16],
    }
