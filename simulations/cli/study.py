"""Code shared by the commands that run a study."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from fedsi.errors import UserError
from fedsi.files import make_folder
from simulations.cli import options
from simulations.cli.display import Display

if TYPE_CHECKING:
    from fedsi.data.population import Description
    from fedsi.experiment import Experiment
    from simulations.reports.study import Report, Reported

_Item = TypeVar("_Item")

Architectures = Annotated[str, typer.Option(metavar="NAME,...", help="Architectures to compare.")]
Seeds = Annotated[
    int, typer.Option(min=1, max=1000, help="Seeds, counting up from the experiment's.")
]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="Runs at the same time; by default one per core.")
]


def parse_list(text: str, kind: Callable[[str], _Item], option: str) -> list[_Item]:
    """Parse a list separated by commas.

    Raises:
        UserError: The list is empty, or has a duplicate or an item of another kind.
    """
    try:
        items = [kind(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UserError(f"{option} takes numbers separated by commas, not {text!r}") from None
    if not items or len(set(items)) < len(items):
        raise UserError(f"{option} takes different values separated by commas, not {text!r}")
    return items


def parse_lengths(text: str, option: str) -> list[int]:
    """Parse sequence lengths.

    Raises:
        UserError: Same as ``parse_list``; or a length is below 1.
    """
    lengths = parse_list(text, int, option)
    if min(lengths) < 1:
        raise UserError(f"{option} takes lengths of 1 or more, not {min(lengths)}")
    return lengths


def check_folder(folder: Path, kind: str, *, overwrite: bool, resume: bool) -> None:
    """Refuse a folder that a study must not be written to.

    Raises:
        UserError: It is a file, or holds a study and neither or both of ``overwrite`` and
            ``resume``
            are set.
    """
    from simulations.studies.grid import RUNS

    if overwrite and resume:
        raise UserError("give either --resume or --overwrite, not both")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder with --out")
    if (folder / RUNS).exists() and not overwrite and not resume:
        raise UserError(
            f"{folder} already holds a {kind}; continue it with --resume, replace it with "
            "--overwrite, or name another folder with --out"
        )


@contextmanager
def shown(console: Console, folder: Path) -> Iterator[Display]:
    """Lock a study's folder and show its progress.

    Raises:
        UserError: Another process works in the folder.
        StoppedError: After a Ctrl-C; says how to continue.
    """
    from server.runs.lock import held

    try:
        with held(folder), Display(console) as display:
            yield display
    except KeyboardInterrupt:
        raise options.StoppedError(
            f"interrupted; continue with the same command and --resume --out {folder}"
        ) from None


def open_corpus(base: "Experiment", cache: Path, display: Display) -> "Description":
    """Prepare the corpus once, check that all runs can use it, and return its description.

    Raises:
        UserError: There is no such corpus or trace, or there are too few clients.
    """
    from fedsi.data.prepare import open_population, prepare
    from server.cohorts.availability import read_trace
    from server.cohorts.sampling import check_cohort_size

    population = open_population(prepare(base.data, cache, display.step))
    display.corpus(base, population.description)
    training_clients = population.description.training_clients
    check_cohort_size(base, training_clients)
    if base.devices.trace is not None:
        read_trace(Path(base.devices.trace), population.find, training_clients)
    return population.description


def run_experiments(
    experiments: Mapping[str, "Experiment"],
    folder: Path,
    display: Display,
    description: "Description",
    *,
    cache: Path,
    jobs: int | None,
    overwrite: bool,
) -> dict[str, str]:
    """Run unfinished experiments, each in a folder of its name.

    Returns:
        Reasons of those that did not finish.

    Raises:
        UserError: A folder holds a run of another experiment or corpus, or an architecture cannot
            be
            built.
        TrialError: No experiment finished.
    """
    from fedsi.models.build import build_model
    from fedsi.threads import available_cores
    from simulations.studies.grid import RUNS
    from simulations.studies.runner import TrialError, check_same, run_trials

    experiments = {name: one.located(Path.cwd()) for name, one in experiments.items()}
    for experiment in experiments.values():
        build_model(experiment, description.vocabulary_size)
    make_folder(folder / RUNS)
    if not overwrite:
        check_same(experiments, folder / RUNS, description.corpus_sha256)
    failures = run_trials(
        experiments,
        folder / RUNS,
        cache,
        jobs or available_cores(),
        fresh=overwrite,
        on_records=lambda name, records: display.rounds(
            name, records, experiments[name].server.rounds
        ),
    )
    if len(failures) == len(experiments):
        raise TrialError(failures)
    return failures


def finish(
    report: "Report",
    study: "Reported",
    base: "Experiment",
    folder: Path,
    failures: Mapping[str, str],
    *,
    as_json: bool,
) -> None:
    """Write a study's report and show it.

    Args:
        report: The report.
        study: The finished runs.
        base: The experiment that they vary.
        folder: The study's folder.
        failures: Reasons of the runs that did not finish.
        as_json: Print values instead of the table.

    Raises:
        TrialError: Some did not finish; the report is written nevertheless.
    """
    from simulations.reports.study import write_report
    from simulations.studies.runner import TrialError

    write_report(report, study, base, folder)
    _show(report, folder, as_json=as_json)
    if failures:
        raise TrialError(failures)


def _show(report: "Report", folder: Path, *, as_json: bool) -> None:
    """Print the result, and on the console where the rest is."""
    from simulations.reports.study import PAGE

    if as_json:
        typer.echo(json.dumps(report.values, allow_nan=False))
    else:
        _print(report, options.output())
    options.messages().print(
        f"figure: {folder / report.stem}.png\nreport: {folder / PAGE}",
        highlight=False,
        soft_wrap=True,
    )


def _print(report: "Report", console: Console) -> None:
    drawn = Table(title=report.table_title, title_justify="left")
    for place, name in enumerate(report.header):
        drawn.add_column(name, justify="left" if place == 0 else "right")
    for row in report.rows:
        drawn.add_row(*row)
    console.print(drawn)
    for sentence in report.findings:
        console.print(f"- {sentence}", highlight=False)
