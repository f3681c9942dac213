"""``fedsi try``: a keyboard in the browser, with the suggestions of one or two trained models."""

from pathlib import Path
from typing import Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options
from simulations.cli.foreign_output import others_to_stderr


def try_model(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN [RUN]", help="Folders of one or two finished runs.")
    ],
    output_layer: options.OutputLayer = "exact",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8321,
    trust: options.Trust = False,
    best: options.Best = False,
) -> None:
    """Serve a keyboard to try one or two models on, for a browser on this machine, until Ctrl-C."""
    from fedsi.inference.ranking import refuse_labels
    from fedsi.threads import torch_threads
    from simulations.finished_run import open_run
    from simulations.keyboard.server import KeyboardServer
    from simulations.keyboard.typist import Typist

    if len(runs) > 2:
        raise UserError(f"{len(runs)} runs are named; a keyboard compares at most two")
    with others_to_stderr(), torch_threads(1):
        trained = [open_run(run, trust=trust, best=best).trained for run in runs]
        for one in trained:
            refuse_labels(one, "fedsi try")
        names = [run.resolve().name for run in runs]
        if len(set(names)) < len(names):
            names = [str(run) for run in runs]
        typists = [
            Typist(name, one, output_layer) for name, one in zip(names, trained, strict=True)
        ]
    with KeyboardServer(port, typists) as server:
        typer.echo(server.address)
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            options.messages().print("stopped")
