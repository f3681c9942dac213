"""``fedsi experts``: the use of a mixture's experts by clients, and clipping of their updates."""

from dataclasses import asdict
from typing import Annotated

import typer

from simulations.cli import options
from simulations.cli.display import Display
from simulations.cli.measurements import show_measurements


def experts(
    run: options.RunFolderArgument,
    clients: Annotated[int, typer.Option(min=1, help="Training clients to look at.")] = 50,
    clip_norm: Annotated[
        float | None,
        typer.Option(
            min=1e-9, help="Clip whole updates to this norm; by default to their median norm."
        ),
    ] = None,
    out: options.Out = None,
    corpus: options.MovedCorpus = None,
    as_json: options.Json = False,
    best: options.Best = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Show which experts of a mixture clients use, and what clipping leaves of their updates."""
    from simulations.evaluation import open_heldout
    from simulations.expert_use import expert_use, experts_report
    from simulations.finished_run import open_run

    with Display(options.messages()) as display:
        finished = open_run(run, best=best)
        population = open_heldout(finished, cache, display.step, corpus)
        found, limit = expert_use(finished, population, clients, clip_norm, display.step)
    folder = out or options.default_folder("experts")
    rows = [asdict(one) for one in found]
    show_measurements(experts_report(found, clients, limit), rows, folder, as_json=as_json)
