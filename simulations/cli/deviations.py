"""``fedsi deviations``: how a student's probabilities deviate from its teacher's."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsi.errors import UserError
from simulations.cli import options
from simulations.cli.display import Display
from simulations.cli.foreign_output import others_to_stderr
from simulations.cli.wide_table import print_table
from simulations.safe_text import one_line

if TYPE_CHECKING:
    from simulations.finished_run import FinishedRun
    from simulations.reports.deviations import Compared

_HEADER = (
    "",
    "run",
    "seed",
    "positions",
    "slope",
    "correlation",
    "spread",
    "low confidence, below",
)


def deviations(
    teacher: Annotated[Path, typer.Argument(metavar="TEACHER", help="Folder of a finished run.")],
    student: Annotated[
        list[Path],
        typer.Argument(metavar="STUDENT...", help="Folders of finished runs, one for each seed."),
    ],
    control: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="A run like the student's that never saw the teacher; once for each seed.",
        ),
    ] = None,
    positions: Annotated[
        int, typer.Option(min=8, help="Held-out positions of the teacher's run.")
    ] = 20_000,
    out: options.Out = None,
    corpus: options.MovedCorpus = None,
    as_json: options.Json = False,
    trust: options.Trust = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Compare students' log odds with their teacher's on held-out clients (arXiv 2301.12923)."""
    from fedsi.files import make_folder
    from simulations.deviations import log_odds_of_runs
    from simulations.evaluation import open_heldout
    from simulations.finished_run import open_run
    from simulations.reports.deviations import deviation_sentences, deviations_figure
    from simulations.reports.figures import save_figure

    with others_to_stderr(), Display(options.messages()) as display:
        names = {"student": student, "control": control or []}
        first = open_run(teacher, trust=trust)
        runs = {
            kind: [open_run(name, trust=trust) for name in paths] for kind, paths in names.items()
        }
        _check_seeds(runs["student"], "students")
        _check_seeds(runs["control"], "controls")
        others = [*runs["student"], *runs["control"]]
        population = open_heldout(first, cache, display.step, corpus)
        odds, *rest = log_odds_of_runs(first, others, population, positions, display.step)
    compared = [_compared(odds, run, one) for run, one in zip(others, rest, strict=True)]
    kinds = {"student": compared[: len(student)], "control": compared[len(student) :]}
    folder = out or options.default_folder("deviations")
    make_folder(folder)
    drawn = {kind: each for kind, each in kinds.items() if each}
    save_figure(deviations_figure(odds, drawn), folder / "deviations")
    told = deviation_sentences(kinds["student"], kinds["control"])
    if as_json:
        values = {kind: [_values(one) for one in each] for kind, each in kinds.items()}
        typer.echo(json.dumps({**values, "findings": told}))
    else:
        rows = [row for kind, each in drawn.items() for row in _rows(kind, each)]
        print_table(options.output(), "Deviations from the teacher", _HEADER, rows)
        for sentence in told:
            typer.echo(f"- {sentence}")
    figure = one_line(str(folder / "deviations.png"))
    options.messages().print(f"figure: {figure}", highlight=False, soft_wrap=True)


def _check_seeds(runs: "Sequence[FinishedRun]", called: str) -> None:
    """Refuse two runs of one seed, which are no repetition.

    Raises:
        UserError: There are.
    """
    seeds = [run.experiment.seed for run in runs]
    for place, seed in enumerate(seeds):
        if seed in seeds[:place]:
            other = runs[seeds.index(seed)]
            raise UserError(
                f"two {called} have seed {seed}, {other.path} and {runs[place].path}; name one run "
                "for each seed"
            )


def _compared(teacher: Any, run: "FinishedRun", odds: Any) -> "Compared":
    """Compare a run with the teacher.

    Raises:
        UserError: They cannot be compared.
    """
    from fedsi.inference.deviations import deviations_of
    from simulations.reports.deviations import Compared

    try:
        found = deviations_of(teacher, odds)
    except ValueError as error:
        raise UserError(f"{run.path} cannot be compared with the teacher: {error}") from None
    return Compared(run.path.resolve().name, run.experiment.seed, odds, found)


def _values(one: "Compared") -> dict[str, Any]:
    return {"run": one.name, "seed": one.seed, **asdict(one.found)}


_SHOWN = ("slope", "correlation", "spread", "below")


def _rows(kind: str, runs: "Sequence[Compared]") -> list[tuple[str, ...]]:
    """Return a row for each run and, of several, one of their means."""
    rows = [
        (kind, one_line(one.name), str(one.seed), f"{one.found.positions:,}", *_numbers([one]))
        for one in runs
    ]
    return [*rows, (kind, "mean", "", "", *_numbers(runs))] if len(runs) > 1 else rows


def _numbers(runs: "Sequence[Compared]") -> tuple[str, ...]:
    means = [statistics.fmean(getattr(one.found, name) for one in runs) for name in _SHOWN]
    return tuple(f"{mean:.3f}" for mean in means)
