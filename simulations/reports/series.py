"""The page of a series: each study's question and verdict, with links to their own pages."""

import json
from pathlib import Path
from typing import Any

from simulations.reports.page import PAGE, Page, PageTable, day_of, write_page
from simulations.studies.series import SERIES, Series
from simulations.studies.study import Study


def write_series(series: Series, folder: Path) -> None:
    """Write the page of a series from the reports of its studies; others are listed as open.

    Args:
        series: The series.
        folder: Its folder, in which at least one study has a report.
    """
    told = {study.name: _told(folder, study) for study in series.studies}
    finished = {name: values for name, values in told.items() if values}
    rows = [_row(study, told[study.name]) for study in series.studies]
    header = ("study", "question", "runs", "seeds")
    verdicts = [
        f"{series.question} {len(finished)} of {len(series.studies)} studies have results.".strip(),
        *(f"{one['question']} {one['verdicts'][0]}" for one in finished.values()),
    ]
    page = Page(
        title=series.name,
        kind="Series of studies",
        date=day_of(*(folder / name / f"{name}.json" for name in finished)),
        verdict=verdicts,
        experiment=None,
        tables=[PageTable("Studies, in order of importance", header, rows)],
        methods=["Each study's page has its figures, tables and methods."],
        command=f"fedsi study {SERIES}",
        files=[SERIES, *(f"{name}/{PAGE}" for name in finished)],
    )
    write_page(page, folder)


def _told(folder: Path, study: Study) -> dict[str, Any] | None:
    """Return the values that a study's report has; None without one."""
    path = folder / study.name / f"{study.name}.json"
    if not path.exists():
        return None
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _row(study: Study, told: dict[str, Any] | None) -> list[str]:
    if told is None:
        return [study.name, study.question, "not run yet", ""]
    return [study.name, study.question, str(len(told["runs"])), str(told["seeds"])]
