"""``fedsi attack``: accuracy of trained models whose word vectors are moved against them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options, studies
from simulations.cli.display import Display
from simulations.cli.measurements import show_measurements


def attack(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    epsilons: Annotated[
        str,
        typer.Option(
            metavar="SHARE,...", help="Largest moves, as shares of the vectors' root mean square."
        ),
    ] = "0.01,0.02,0.05",
    steps: Annotated[int, typer.Option(min=1, help="Steps of each attack.")] = 20,
    targets: Annotated[int, typer.Option(min=1, help="Held-out targets of each run.")] = 4000,
    out: options.Out = None,
    corpus: options.MovedCorpus = None,
    as_json: options.Json = False,
    trust: options.Trust = False,
    best: options.Best = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Attack trained models by projected gradient steps on the word vectors of held-out texts.

    Runs whose names differ in nothing but the seed are shown together.
    """
    from simulations.attack import attack_report, attack_run
    from simulations.evaluation import open_heldout
    from simulations.finished_run import open_run

    strengths = studies.parse_list(epsilons, float, "--epsilons")
    if not all(0 <= one < 10 for one in strengths):
        raise UserError(f"--epsilons takes shares from 0 to 10, not {epsilons!r}")
    found = []
    with Display(options.messages()) as display:
        for run in runs:
            finished = open_run(run, trust=trust, best=best)
            population = open_heldout(finished, cache, display.step, corpus)
            found += attack_run(finished, population, strengths, steps, targets, display.step)
    rows = [asdict(one) for one in found]
    folder = out or options.default_folder("attack")
    show_measurements(attack_report(found, steps), rows, folder, as_json=as_json)
