"""``fedsi tradeoff``: utility against privacy, by architecture, level of noise and seed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedsi.errors import UserError
from simulations.cli import options, study

if TYPE_CHECKING:
    from simulations.studies.grid import Axis
    from simulations.studies.tradeoff import Level

_EPSILONS = "inf,8,4,2,1"


def tradeoff(
    experiment_file: options.ExperimentFile = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    architectures: study.Architectures = "cifg,si_cifg",
    target_epsilons: Annotated[
        str | None,
        typer.Option(
            metavar="EPSILON,...",
            help=f"Epsilons of the whole run; inf is without noise. By default {_EPSILONS}.",
        ),
    ] = None,
    noise_multipliers: Annotated[
        str | None,
        typer.Option(metavar="NUMBER,...", help="Noise multipliers instead; 0 is without noise."),
    ] = None,
    seeds: study.Seeds = 1,
    jobs: study.Jobs = None,
    out: options.Out = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    cache: options.Cache = options.CACHE,
) -> None:
    """Run every combination and write utility against epsilon: a table, a figure and a page."""
    from fedsi.experiment import parse_overrides
    from simulations.reports.study import with_failures
    from simulations.reports.tradeoff import tradeoff_report
    from simulations.studies.grid import grid, read_results
    from simulations.studies.tradeoff import (
        Tradeoff,
        experiment_of,
        level_of,
        with_noise,
        without_noise,
    )

    named = options.named(experiment_file, preset)
    base = without_noise(named, parse_overrides(overrides or []))
    names = study.parse_list(architectures, str, "--architectures")
    axis, values = _levels(target_epsilons, noise_multipliers)
    trials = list(grid(names, axis, values, seeds, base.seed))
    experiments = {trial.name: experiment_of(base, trial) for trial in trials}
    folder = out or options.default_folder("tradeoff")
    study.check_folder(folder, "trade-off", overwrite=overwrite, resume=resume)
    console = options.messages()
    with study.shown(console, folder) as display:
        corpus = study.open_corpus(base, cache, display)
        clients = corpus.training_clients
        levels = [level_of(with_noise(base, axis, value), clients) for value in values]
        _show_levels(levels, console)
        failures = study.run_experiments(
            experiments, folder, display, corpus, cache=cache, jobs=jobs, overwrite=overwrite
        )
    finished = [trial for trial in trials if trial.name not in failures]
    result = Tradeoff(names, values, read_results(finished, folder), levels)
    report = with_failures(tradeoff_report(result), failures)
    study.finish(report, result, base, folder, failures, as_json=as_json)


def _levels(epsilons: str | None, multipliers: str | None) -> tuple["Axis", list[float]]:
    """Return the varied key and its values, least noise first."""
    from simulations.studies.tradeoff import EPSILON, NOISE

    if epsilons and multipliers:
        raise UserError("give either --target-epsilons or --noise-multipliers, not both")
    if multipliers:
        return NOISE, sorted(study.parse_list(multipliers, float, "--noise-multipliers"))
    values = study.parse_list(epsilons or _EPSILONS, float, "--target-epsilons")
    return EPSILON, sorted(values, reverse=True)


def _show_levels(levels: Sequence["Level"], console: Console) -> None:
    from simulations.reports.tradeoff_figure import number

    for level in levels:
        console.print(
            f"epsilon {number(level.epsilon)}: noise multiplier {number(level.noise_multiplier)}, "
            f"noise on the mean {number(level.noise_on_mean)}",
            highlight=False,
        )
