"""Code shared by the commands that run a study: options, the corpus, the report."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console

from fedsi.errors import UserError
from simulations.cli import options
from simulations.cli.display import Display
from simulations.cli.wide_table import print_table
from simulations.safe_text import typed

if TYPE_CHECKING:
    from fedsi.data.population import Population
    from fedsi.experiment import Experiment, Scalar
    from server.round_record import RoundRecord
    from simulations.reports.study import Report
    from simulations.studies.axes import Axis
    from simulations.studies.part import StudyPart
    from simulations.studies.privacy_levels import Level
    from simulations.studies.run import StudyRun
    from simulations.studies.study import Combination, Study
    from simulations.tracking.study_watch import StudyWatch

_Item = TypeVar("_Item")

Architectures = Annotated[str, typer.Option(metavar="NAME,...", help="Architectures to compare.")]
Seeds = Annotated[
    int, typer.Option(min=1, max=1000, help="Seeds, counting up from the experiment's.")
]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="Runs at the same time; by default one per core.")
]

Vary = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=a,b,c",
        help="A key to tune, and its values; may be given several times.",
    ),
]


ServerRates = Annotated[
    str | None,
    typer.Option(
        metavar="RATE,...",
        help="Server learning rates to try for each; by default the experiment's.",
    ),
]


@dataclass(frozen=True)
class How:
    """The options of how a study is carried out, common to all commands that run one."""

    jobs: Jobs = None
    out: options.Out = None
    as_json: options.Json = False
    overwrite: options.Overwrite = False
    resume: options.Resume = False
    track: options.Track = None
    cache: options.Cache = options.CACHE


def rate_axes(client: str | None, server: str | None) -> tuple["Axis", ...]:
    """Return the axes of learning rates that the options give, to be tuned.

    Raises:
        UserError: A list is empty, or has a duplicate or something that is not a number.
    """
    from simulations.studies.axes import Axis

    found = []
    for text, side, label in ((client, "client", "lr"), (server, "server", "server-lr")):
        if text is not None:
            rates = parse_list(text, float, f"--{side}-learning-rates")
            found.append(Axis(key=f"{side}.learning_rate", values=tuple(rates), label=label))
    return tuple(found)


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


def varied(vary: list[str] | None, option: str = "--vary") -> tuple["Axis", ...]:
    """Return the axes that an option names.

    Raises:
        UserError: A word is not ``KEY=a,b,c``, or an axis refuses it.
    """
    return tuple(_axis(text, option) for text in vary or ())


def _axis(text: str, option: str) -> "Axis":
    """Parse ``KEY=a,b,c``.

    Raises:
        UserError: It is not that, or what an axis refuses.
    """
    from pydantic import ValidationError

    from fedsi.experiment import parse_overrides
    from fedsi.experiment.explanations import explain
    from simulations.studies.axes import Axis

    key, equals, listed = text.partition("=")
    if not equals:
        raise UserError(f"{option} takes KEY=a,b,c, not {text!r}")
    parts = [part.strip() for part in listed.split(",") if part.strip()]
    parsed = [parse_overrides([f"{key}={part}"])[key] for part in parts]
    values: list[Scalar] = ["none" if value is None else value for value in parsed]
    try:
        return Axis(key=key, values=tuple(values))
    except ValidationError as error:
        raise UserError(f"{option} {text}: {explain(error, list(Axis.model_fields))}") from None


def check_folder(folder: Path, kind: str, *, overwrite: bool, resume: bool) -> None:
    """Refuse a folder that a study must not be written to.

    Raises:
        UserError: It is a file, or holds a study and neither or both of ``overwrite`` and
            ``resume`` are set.
    """
    from simulations.studies.results import RUNS

    if overwrite and resume:
        raise UserError("give either --resume or --overwrite, not both")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder with --out")
    if (folder / RUNS).exists() and not overwrite and not resume:
        raise UserError(
            f"{folder} already holds a {kind}; continue it with --resume, replace it with "
            "--overwrite, or name another folder with --out"
        )


def chosen_part(text: str, study: "Study", out: Path | None, *, overwrite: bool) -> "StudyPart":
    """Return the part of a study that ``--part`` names.

    Raises:
        UserError: It names none, or does not go together with the other options.
    """
    from simulations.studies.part import StudyPart

    part = StudyPart.parsed(text)
    part.trials(study)
    if out is None:
        raise UserError("--part needs --out, the folder that all parts of the study share")
    if overwrite:
        raise UserError(
            "--part and --overwrite cannot be combined, because one part would remove what the "
            "others have done; remove the folder before the first part starts"
        )
    return part


@contextmanager
def shown(
    console: Console, folder: Path, *, shared: bool = False, series: Path | None = None
) -> Iterator[Display]:
    """Lock a study's folder and show its progress.

    Args:
        console: The console.
        folder: The folder.
        shared: Leave the folder to other processes too; each trial's own folder is locked.
        series: The folder of the series that the study is run for.

    Raises:
        UserError: Another process works in the folder.
        StoppedError: After a Ctrl-C; says how to continue.
    """
    from server.runs.lock import held

    try:
        with nullcontext() if shared else held(folder), Display(console) as display:
            yield display
    except KeyboardInterrupt:
        again = (
            f"fedsi study {typed(series)}"
            if series
            else f"the same command and --resume --out {typed(folder)}"
        )
        raise options.StoppedError(f"interrupted; continue with {again}") from None


def prepare_corpus(base: "Experiment", cache: Path, display: Display) -> "Population":
    """Prepare the corpus once, and check that all runs can use it.

    Raises:
        UserError: There is no such corpus or trace, or there are too few clients.
    """
    from fedsi.data.prepare import open_population, prepare_for
    from server.cohorts.availability import read_trace
    from server.cohorts.sampling import check_cohort_size

    population = open_population(prepare_for(base, cache, display.step))
    display.corpus(base, population.description)
    training_clients = population.description.training_clients
    check_cohort_size(base, training_clients)
    if base.devices.trace is not None:
        read_trace(Path(base.devices.trace), population.find, training_clients)
    return population


def carry_out(study: "Study", how: How, part: str | None = None) -> None:
    """Run a study in a folder, write its report and show it.

    Args:
        study: The study.
        how: The options.
        part: Text ``I/N``, to run a part of the trials only and write no report.

    Raises:
        UserError: The study cannot be run, or not in this folder.
        TrialError: Some trials did not finish; the report is written nevertheless.
    """
    from simulations.studies.runner import TrialError

    study.trials()  # refuses an invalid study before a folder is created
    mine = None if part is None else chosen_part(part, study, how.out, overwrite=how.overwrite)
    folder = how.out or options.default_folder(study.name)
    resume = how.resume or mine is not None
    check_folder(folder, study.name, overwrite=how.overwrite, resume=resume)
    run, report = trained(
        study,
        folder,
        cache=how.cache,
        jobs=how.jobs,
        fresh=how.overwrite,
        track=how.track,
        mine=mine,
    )
    if mine:
        _tell_of_part(mine, study, run.failures, folder, as_json=how.as_json)
    if report:
        show(report, folder, study.name, as_json=how.as_json)
    if run.failures:
        raise TrialError(run.failures)


def trained(
    study: "Study",
    folder: Path,
    *,
    cache: Path,
    jobs: int | None,
    fresh: bool = False,
    track: str | None = None,
    mine: "StudyPart | None" = None,
    series: Path | None = None,
) -> tuple["StudyRun", "Report | None"]:
    """Run a study in a folder and write its report.

    Args:
        study: The study.
        folder: The folder.
        cache: Folder for corpora and populations.
        jobs: Trials that run at the same time; None for one per core.
        fresh: Restart every trial, whatever the folder holds.
        track: The trackers that show its runs' curves too, separated by commas.
        mine: The part of the trials to run, without a report; None for all.
        series: The folder of the series that it is run for.

    Raises:
        UserError: The study cannot be run, or not in this folder.
        TrialError: No trial finished.
    """
    from simulations.reports.study import study_report, write_study
    from simulations.studies.run import StudyRun
    from simulations.tracking.study_watch import StudyWatch

    console, trackers = options.messages(), options.tracker_names(track)
    watch = StudyWatch(trackers, folder, study.name, fresh=fresh)
    with shown(console, folder, shared=mine is not None, series=series) as display, watch:
        population = prepare_corpus(study.experiment, cache, display)
        run = StudyRun(
            study.located(Path.cwd()),
            folder,
            population,
            cache,
            jobs,
            fresh=fresh,
            on_records=_told(display, watch),
            progress=display.step,
        )
        run.check()
        _show_levels(study, run.levels(), console)
        console.print(cost(study), highlight=False, soft_wrap=True)
        if mine:
            run.run_part(mine)
            return run, None
        result = run.run()
    report = study_report(result, run.failures)
    write_study(report, result, folder)
    return run, report


def _tell_of_part(
    part: "StudyPart", study: "Study", failures: Mapping[str, str], folder: Path, *, as_json: bool
) -> None:
    """Print the result of a part."""
    trials = len(part.trials(study))
    if as_json:
        values = {"part": str(part), "trials": trials, "not_finished": dict(failures)}
        typer.echo(json.dumps(values))
    else:
        typer.echo(
            f"part {part}: {trials - len(failures)} of {trials} trials are finished; when all "
            f"parts have ended, write the report with: fedsi study {typed(folder)}"
        )


def _told(
    display: Display, watch: "StudyWatch"
) -> "Callable[[str, Sequence[RoundRecord], int], None]":
    """Return what shows a trial's rounds and passes them to its trackers."""

    def on_records(name: str, records: "Sequence[RoundRecord]", planned: int) -> None:
        display.rounds(name, records, planned)
        watch.records(name, records)

    return on_records


def cost(study: "Study") -> str:
    """Return how much a study has to train, in words, before it starts."""
    trials, cohort = study.trials(), study.experiment.server.cohort_size
    axes = {axis.called: {point for t in trials for point in t.points if point.axis == axis.called}
            for axis in study.axes}  # fmt: skip
    counts = [f"{len(points)} of {name}" for name, points in axes.items()]
    runs = f"{len(trials)} runs ({', '.join([*counts, f'{study.seeds} of seed'])})"
    clients = sum(one.experiment.server.rounds for one in trials) * cohort
    if study.design != "halving":
        return f"{runs}, together about {clients:,} times a client's training"
    first, *others = study.stages()
    places = len(trials) // (first.settings * len(first.seeds))
    later = [
        f"{places * stage.settings * len(stage.seeds)} of "
        f"{stage.rounds or study.experiment.server.rounds}"
        for stage in others
    ]
    return f"{runs} of {first.rounds} rounds, then {', then '.join(later)} rounds"


def _show_levels(study: "Study", levels: "Mapping[Combination, Level]", console: Console) -> None:
    """Print each level of noise, with the compared and tuned values that have it if not all do."""
    from simulations.reports.study_words import number, words

    def varied(points: "Combination") -> "Combination":
        return study.part(points, "compare") + study.part(points, "tune")

    for level in dict.fromkeys(levels.values()):
        those = [varied(points) for points, one in levels.items() if one == level]
        of_axes = zip(zip(*those, strict=True), zip(*map(varied, levels), strict=True), strict=True)
        values = [
            words(tuple(dict.fromkeys(some))) for some, every in of_axes if {*some} < {*every}
        ]
        told = f" ({', '.join(values)})" if values else ""
        console.print(
            f"epsilon {number(level.epsilon)}{told}: noise multiplier "
            f"{number(level.noise_multiplier)}, noise on the mean {number(level.noise_on_mean)}",
            highlight=False,
            soft_wrap=True,
        )


def show(report: "Report", folder: Path, name: str, *, as_json: bool) -> None:
    """Print the result, and show the paths of the files on the console."""
    from simulations.reports.page import PAGE

    if as_json:
        typer.echo(json.dumps(report.values, allow_nan=False))
    else:
        _print(report, options.output())
    options.messages().print(
        f"figure: {folder / name}.png\nreport: {folder / PAGE}",
        highlight=False,
        soft_wrap=True,
    )


def _print(report: "Report", console: Console) -> None:
    if report.made:
        print_table(console, report.made.title, report.made.header, report.made.rows)
    print_table(console, report.table_title, report.header, report.rows, report.named)
    for sentence in report.shown:
        console.print(f"- {sentence}", highlight=False)
