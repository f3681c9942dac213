"""``fedsi compare``: architectures over client learning rates and seeds."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from fedsi.data.prepare import open_population, prepare
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.models.build import build_model
from server.availability import read_trace
from server.cohorts import check_cohort_size
from simulations.cli import options
from simulations.cli.display import Display
from simulations.reports.comparison import FIGURE, PAGE, write_comparison
from simulations.reports.findings import findings, table
from simulations.studies.compare import (
    RUNS,
    Comparison,
    experiment_of,
    grid,
    read_outcomes,
)
from simulations.studies.runner import check_same, run_cells

_Item = TypeVar("_Item")


def compare(
    experiment_file: options.ExperimentFile = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    architectures: Annotated[
        str, typer.Option(metavar="NAME,...", help="Architectures to compare.")
    ] = "cifg,si_cifg",
    client_learning_rates: Annotated[
        str, typer.Option(metavar="RATE,...", help="Client learning rates to try for each.")
    ] = "0.3,1,3",
    seeds: Annotated[
        int, typer.Option(min=1, help="Seeds, counting up from the experiment's.")
    ] = 1,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at the same time; by default one a core.")
    ] = None,
    out: options.Out = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Run every combination and write one table, one figure and one page."""
    base = options.resolve(experiment_file, preset, overrides)
    names = _parse(architectures, str, "--architectures")
    rates = _parse(client_learning_rates, float, "--client-learning-rates")
    cells = list(grid(names, rates, seeds, base.seed))
    experiments = {cell.name: experiment_of(base, cell) for cell in cells}
    folder = out or options.default_folder("compare")
    _check_folder(folder, overwrite=overwrite, resume=resume)
    console = options.messages()
    try:
        with Display(console) as display:
            corpus_sha256 = _check_runs(base, names, cache, display)
            if not overwrite:
                check_same(experiments, folder / RUNS, corpus_sha256)
            run_cells(
                experiments,
                folder / RUNS,
                cache,
                jobs or len(os.sched_getaffinity(0)),
                fresh=overwrite,
                on_records=lambda name, records: display.rounds(name, records, base.server.rounds),
            )
    except KeyboardInterrupt:
        raise options.StoppedError(
            f"interrupted; continue with the same command and --resume --out {folder}"
        ) from None
    comparison = Comparison(names, rates, read_outcomes(cells, folder))
    write_comparison(comparison, base, folder)
    _show(comparison, as_json=as_json)
    console.print(
        f"figure: {folder / FIGURE}.png\nreport: {folder / PAGE}", highlight=False, soft_wrap=True
    )


def _parse(text: str, kind: Callable[[str], _Item], option: str) -> list[_Item]:
    try:
        items = [kind(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UserError(f"{option} takes numbers separated by commas, not {text!r}") from None
    if not items or len(set(items)) < len(items):
        raise UserError(f"{option} takes different values separated by commas, not {text!r}")
    return items


def _check_folder(folder: Path, *, overwrite: bool, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder with --out")
    if (folder / RUNS).exists() and not overwrite and not resume:
        raise UserError(
            f"{folder} already holds a comparison; continue it with --resume, replace it with "
            "--overwrite, or name another folder with --out"
        )


def _check_runs(
    base: Experiment, architectures: Sequence[str], cache: Path, display: Display
) -> str:
    """Prepare the corpus once, find out whether all runs can use it, and return its hash."""
    population = open_population(prepare(base.data, cache, display.step))
    training_clients = population.description.training_clients
    check_cohort_size(base, training_clients)
    if base.devices.trace is not None:
        read_trace(Path(base.devices.trace), population.find, training_clients)
    for name in architectures:
        experiment = base.updated({"model.architecture": name})
        build_model(experiment, population.description.vocabulary_size)
    return population.description.corpus_sha256


def _show(comparison: Comparison, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(comparison.to_json(), allow_nan=False))
        return
    header, rows = table(comparison)
    drawn = Table(
        title="Held-out loss (nats per token) by client learning rate", title_justify="left"
    )
    for place, name in enumerate(header):
        drawn.add_column(name, justify="left" if place == 0 else "right")
    for row in rows:
        drawn.add_row(*row)
    console = Console()
    console.print(drawn)
    for sentence in findings(comparison):
        console.print(f"- {sentence}", highlight=False)
