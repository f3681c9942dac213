"""``fedsi presets``: the experiments included with fedsi."""

import json
from typing import Any

import typer

from simulations.cli import options
from simulations.cli.wide_table import print_table
from simulations.presets import SECONDS, load_preset, preset_names, what_it_is

_SPECIAL_TOKENS = 4


def presets(as_json: options.Json = False) -> None:
    """List the presets with their parameters and their time on two cores."""
    found = [_facts(name) for name in preset_names()]
    if as_json:
        typer.echo(json.dumps(found))
        return
    header = ("preset", "what it is", "model", "parameters", "rounds x clients", "on two cores")
    rows = [
        (
            one["preset"],
            one["what"],
            one["architecture"],
            f"{one['parameters']:,}",
            f"{one['rounds']} x {one['cohort_size']}",
            _duration(one["seconds"]),
        )
        for one in found
    ]
    print_table(options.output(), "Presets", header, rows, prose=("what it is", "model"))


def _facts(name: str) -> dict[str, Any]:
    from fedsi.models.build import build_model
    from fedsi.models.model import count_parameters

    experiment = load_preset(name)
    words = experiment.data.vocabulary_size + _SPECIAL_TOKENS
    return {
        "preset": name,
        "what": what_it_is(name),
        "corpus": experiment.data.corpus,
        "architecture": experiment.model.architecture,
        "parameters": count_parameters(build_model(experiment, words)),
        "rounds": experiment.server.rounds,
        "cohort_size": experiment.server.cohort_size,
        "seconds": SECONDS[name],
    }


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "hours"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
