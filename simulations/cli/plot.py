"""``fedsi plot``: the curves of several runs in one figure."""

from pathlib import Path
from typing import Annotated

import typer

from fedsi.errors import UserError
from fedsi.files import make_folder
from simulations.safe_text import one_line


def plot(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, finished or not.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Path of the figure, written as .png and .svg.")
    ] = Path("results/plot.png"),
) -> None:
    """Draw the held-out curves of several runs in one figure."""
    from fedsi.tasks.table import task_of
    from server.runs.folder import EXPERIMENT, RunFolder
    from simulations.reports.figures import save_figure
    from simulations.reports.overlay import overlay

    folders = {path: RunFolder(path) for path in runs}
    for path in folders:
        if not (path / EXPERIMENT).exists():
            raise UserError(f"{path} holds no run; name the folder of one, such as results/run-...")
    experiments = {path: folder.experiment() for path, folder in folders.items()}
    tasks = {experiment.task.name for experiment in experiments.values()}
    if len(tasks) > 1:
        raise UserError(
            f"the runs learn different tasks ({', '.join(sorted(tasks))}), whose metrics share no "
            "axis; name runs of one task"
        )
    records = {path: folder.records() for path, folder in folders.items()}
    for path, rows in records.items():
        if not any(row.heldout for row in rows):
            raise UserError(f"the run in {path} has no evaluation yet; wait for its first one")
    figure = overlay(
        {str(path): rows for path, rows in records.items()}, task_of(experiments[runs[0]])
    )
    make_folder(out.parent)
    save_figure(figure, out.with_suffix(""))
    for suffix in (".png", ".svg"):
        typer.echo(one_line(str(out.with_suffix(suffix))))
