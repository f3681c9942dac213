"""``fedsi report``: the page of a run, an audit, a study or a series, written again."""

from pathlib import Path
from typing import Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options
from simulations.safe_text import one_line


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder of a finished run, of a study or of a series of studies."
        ),
    ],
    trust: options.Trust = False,
) -> None:
    """Write the page again from what the folder holds, without computing anything anew."""
    from server.runs.folder import EXPERIMENT
    from simulations.studies.series import SERIES
    from simulations.studies.study import STUDY

    if (folder / SERIES).exists():
        pages = _series(folder, trust=trust)
    elif (folder / STUDY).exists():
        pages = [_study(folder, trust=trust)]
    elif (folder / EXPERIMENT).exists():
        pages = _run(folder, trust=trust)
    else:
        raise UserError(
            f"{folder} holds neither a run nor a study; name the folder of one, such as "
            "results/run-..."
        )
    for page in pages:
        typer.echo(one_line(str(page)))


def _run(folder: Path, *, trust: bool) -> list[Path]:
    """Write a run's figure and page, and those of its audit if there was one."""
    from server.runs.folder import AUDIT, RunFolder
    from simulations.reports.audit import write_audit
    from simulations.reports.audit_page import AUDIT_PAGE, write_audit_page
    from simulations.reports.page import PAGE
    from simulations.reports.run import finished_summary, write_curves, write_run_page

    options.experiment_of_run(folder, trust=trust)
    summary = finished_summary(RunFolder(folder))
    write_curves(folder)
    write_run_page(folder)
    if not (folder / AUDIT).exists() or not summary.privacy or not summary.privacy.audit:
        return [folder / PAGE]
    write_audit(summary.privacy.epsilon, summary.privacy.audit, folder)
    write_audit_page(folder)
    return [folder / PAGE, folder / AUDIT_PAGE]


def _series(folder: Path, *, trust: bool) -> list[Path]:
    """Write the reports of the studies that have a finished run, and the page about all."""
    from simulations.reports.page import PAGE
    from simulations.reports.series import write_series
    from simulations.studies.finished import has_finished_runs
    from simulations.studies.series import SERIES, Series

    series = Series.from_file(folder / SERIES)
    begun = [one.name for one in series.studies if has_finished_runs(folder / one.name)]
    if not begun:
        raise UserError(
            f"no study of the series in {folder} has a finished run yet; continue it with: fedsi "
            f"study {folder}"
        )
    pages = [_study(folder / name, trust=trust) for name in begun]
    write_series(series, folder)
    return [*pages, folder / PAGE]


def _study(folder: Path, *, trust: bool) -> Path:
    """Write all files of a study's report."""
    from fedsi.trust import check_trusted
    from simulations.reports.page import PAGE
    from simulations.reports.study import study_report, write_study
    from simulations.studies.finished import read_study
    from simulations.studies.study import STUDY, Study

    study = Study.from_file(folder / STUDY)
    if not trust:
        check_trusted(study.experiment.import_paths, folder)
    result, failures = read_study(study, folder)
    write_study(study_report(result, failures), result, folder)
    return folder / PAGE
