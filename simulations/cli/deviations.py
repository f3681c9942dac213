"""``fedsi deviations``: how a student's probabilities deviate from its teacher's."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options
from simulations.cli.display import Display
from simulations.cli.foreign_output import others_to_stderr
from simulations.cli.wide_table import print_table
from simulations.safe_text import one_line

if TYPE_CHECKING:
    from fedsi.inference.deviations import Deviations

_HEADER = ("", "positions", "slope", "correlation", "spread", "low confidence, below")


def deviations(
    teacher: Annotated[Path, typer.Argument(metavar="TEACHER", help="Folder of a finished run.")],
    student: Annotated[Path, typer.Argument(metavar="STUDENT", help="Folder of a finished run.")],
    control: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A run like the student's that never saw the teacher."),
    ] = None,
    positions: Annotated[
        int, typer.Option(min=8, help="Held-out positions of the teacher's run.")
    ] = 20_000,
    out: options.Out = None,
    as_json: options.Json = False,
    trust: options.Trust = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Compare a student's log odds with its teacher's on held-out clients (arXiv 2301.12923)."""
    from fedsi.files import make_folder
    from fedsi.inference.deviations import deviations_of
    from simulations.deviations import log_odds_of_runs
    from simulations.evaluation import open_heldout
    from simulations.finished_run import open_run
    from simulations.reports.deviations import deviation_sentences, deviations_figure
    from simulations.reports.figures import save_figure

    with others_to_stderr(), Display(options.messages()) as display:
        names = [name for name in (teacher, student, control) if name is not None]
        first, *others = [open_run(name, trust=trust) for name in names]
        population = open_heldout(first, cache, display.step)
        odds, *rest = log_odds_of_runs(first, others, population, positions, display.step)
    try:
        found = {
            name: (one, deviations_of(odds, one))
            for name, one in zip(("student", "control"), rest, strict=False)
        }
    except ValueError as error:
        raise UserError(f"{teacher} and {student} cannot be compared: {error}") from None
    folder = out or options.default_folder("deviations")
    make_folder(folder)
    save_figure(deviations_figure(odds, found), folder / "deviations")
    values = {name: each for name, (_, each) in found.items()}
    told = deviation_sentences(values["student"], values.get("control"))
    if as_json:
        typer.echo(json.dumps({**{n: asdict(v) for n, v in values.items()}, "findings": told}))
    else:
        rows = [_row(name, each) for name, each in values.items()]
        print_table(options.output(), "Deviations from the teacher", _HEADER, rows)
        for sentence in told:
            typer.echo(f"- {sentence}")
    figure = one_line(str(folder / "deviations.png"))
    options.messages().print(f"figure: {figure}", highlight=False, soft_wrap=True)


def _row(name: str, found: "Deviations") -> tuple[str, ...]:
    shares = (found.slope, found.correlation, found.spread, found.below)
    return (name, f"{found.positions:,}", *(f"{one:.3f}" for one in shares))
