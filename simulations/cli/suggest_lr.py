"""``fedsi suggest-lr``: a client learning rate from the size of one step, before any round."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsi.errors import UserError
from simulations.cli import options
from simulations.cli.display import Display
from simulations.cli.foreign_output import others_to_stderr
from simulations.cli.studies import prepare_corpus
from simulations.cli.wide_table import print_facts

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from fedsi.learning.suggested_rate import SuggestedRate


def suggest_lr(
    experiment_file: options.ExperimentFile = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    change: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="How much one step changes the last hidden layer, as a share of the layer.",
        ),
    ] = 0.1,
    clients: Annotated[
        int, typer.Option(min=1, max=1000, help="Clients to measure, one batch each.")
    ] = 8,
    as_json: options.Json = False,
    trust: options.Trust = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Suggest client.learning_rate from one step of a few clients, before any round is spent."""
    from fedsi.learning.suggested_rate import suggest_rate
    from fedsi.threads import torch_threads
    from simulations.initial_weights import initial_weights
    from simulations.reports.commands import run_command

    if not 0 < change < 1:
        raise UserError(f"--change {change:g} is not allowed: give a share between 0 and 1")
    experiment = options.chosen_experiment(experiment_file, preset, overrides, trust=trust)
    with others_to_stderr(), torch_threads(1):
        with Display(options.messages()) as display:
            population = prepare_corpus(experiment, cache, display)
        start = initial_weights(experiment, population)
        found = suggest_rate(experiment, population, start, change, clients)
        rate = float(f"{found.rate:.2g}")
        command = run_command(experiment.updated({"client.learning_rate": rate}))
    if as_json:
        typer.echo(json.dumps({**_finite(asdict(found)), "command": command}, allow_nan=False))
        return
    print_facts(options.output(), "", _facts(found))
    messages = options.messages()
    if experiment.privacy.mechanism != "none":
        messages.print(_uncovered(experiment), highlight=False, soft_wrap=True)
    typer.echo(f"next: {command}")


def _facts(found: "SuggestedRate") -> dict[str, str]:
    share = f"{100 * found.change:.3g} %"
    own = f"client.learning_rate={found.own_rate:g}"
    return {
        "suggested client.learning_rate": f"{found.rate:.2g}",
        "single clients": f"{found.lowest:.2g} to {found.highest:.2g}",
        "one step then changes the last hidden layer by": share,
        f"a step at the experiment's {own}": _change(found.own_change),
        "measured on": f"{found.clients} clients, one batch each, {found.targets:,} targets",
    }


def _change(share: float) -> str:
    return f"{100 * share:.3g} %" if share < float("inf") else "not finite"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if value == float("inf") else value for key, value in values.items()}


def _uncovered(experiment: "Experiment") -> str:
    """Return what a private run's epsilon does not know of."""
    return (
        "note: the rate was measured on training clients' text, which epsilon does not cover "
        f"(privacy.mechanism={experiment.privacy.mechanism}); use the rate of a public corpus"
    )
