"""A series of studies, run one after the other; and the cost of a study or a series."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from simulations.cli import options, studies
from simulations.cli.display import Display
from simulations.cli.wide_table import print_table

if TYPE_CHECKING:
    from simulations.studies.cost import StageCost
    from simulations.studies.series import Series
    from simulations.studies.study import Study


def carry_out_series(
    series: "Series",
    out: Path | None,
    *,
    cache: Path,
    jobs: int | None,
    as_json: bool,
    track: str | None = None,
) -> None:
    """Run the unfinished runs of each study, and write its report and a page about all.

    Args:
        series: The series.
        out: Its folder; None creates one.
        cache: Folder for corpora and populations.
        jobs: Trials that run at the same time; None for one per core.
        as_json: Print values instead of tables.
        track: The trackers that show the curves too, separated by commas.

    Raises:
        UserError: A study cannot be run, or not in this folder.
        TrialError: Some trials did not finish; all reports are written nevertheless.
    """
    from simulations.reports.series import write_series
    from simulations.studies.runner import TrialError

    for study in series.studies:
        study.trials()  # refuses an invalid study before anything is trained
    folder = out or options.default_folder(series.name)
    series.write(folder)
    failures: dict[str, str] = {}
    values: dict[str, Any] = {}
    for study in series.studies:
        own = folder / study.name
        options.messages().print(f"\n{study.name}: {study.question}", highlight=False)
        run, report = studies.trained(
            study, own, cache=cache, jobs=jobs, track=track, series=folder
        )
        failures |= {f"{study.name}/{name}": why for name, why in run.failures.items()}
        if report:
            values[study.name] = report.values
            write_series(series, folder)
            if not as_json:
                studies.show(report, own, study.name, as_json=False)
    if as_json:
        typer.echo(json.dumps(values, allow_nan=False))
    options.messages().print(f"all: {folder / 'report.html'}", highlight=False, soft_wrap=True)
    if failures:
        raise TrialError(failures)


def show_cost(
    chosen: Iterable["Study"], out: Path | None, *, cache: Path, jobs: int | None, as_json: bool
) -> None:
    """Print what studies still have to train, and how long one machine takes.

    Args:
        chosen: The studies.
        out: Their folder, or of several studies the parent of their folders; None for new ones.
        cache: Folder for corpora and populations.
        jobs: Trials that run at the same time; None for one per core.
        as_json: Print values instead of a table.

    Raises:
        UserError: A study cannot be run.
    """
    from fedsi.threads import available_cores
    from simulations.studies.cost import TimeEstimate, study_costs

    chosen = list(chosen)
    at_a_time = jobs or available_cores()
    with Display(options.messages()) as display:
        estimate = TimeEstimate(cache, display.step)
        found = [
            (
                one,
                study_costs(
                    one.located(Path.cwd()), _folder(out, one, of_many=len(chosen) > 1), estimate
                ),
            )
            for one in chosen
        ]
    if as_json:
        typer.echo(json.dumps([_values(study, costs) for study, costs in found]))
        return
    rows, hours = [], 0.0
    for study, costs in found:
        for cost in costs:
            hours += cost.seconds / 3600
            rows.append(_row(study, cost, hours / at_a_time))
    header = ("study", "rounds", "runs", "finished", "clients to train", "one core", "end after")
    print_table(options.output(), "To be trained", header, rows)
    for study, _ in found:
        if study.question:
            options.output().print(f"{study.name}: {study.question}", highlight=False)
    options.output().print(
        f"{_time(hours)} of one core, {_time(hours / at_a_time)} with {at_a_time} runs at a time. "
        "Speeds were measured now, on this machine; what else it does makes them longer.",
        highlight=False,
    )


def _folder(out: Path | None, study: "Study", *, of_many: bool) -> Path | None:
    return out / study.name if out and of_many else out


def _row(study: "Study", cost: "StageCost", end: float) -> list[str]:
    numbers = [f"{n:,}" for n in (cost.rounds, cost.trials, cost.finished, cost.clients)]
    return [study.name, *numbers, _time(cost.seconds / 3600), _time(end)]


def _time(hours: float) -> str:
    """Return a duration in the unit that suits its length."""
    minutes = round(60 * hours)
    return f"{hours:.1f} h" if minutes >= 100 else f"{minutes} min"


def _values(study: "Study", costs: Iterable["StageCost"]) -> dict[str, Any]:
    stages = [{key: value for key, value in asdict(one).items() if key != "stage"} for one in costs]
    return {"study": study.name, "question": study.question, "stages": stages}
