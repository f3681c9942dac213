"""``fedsi compare``: architectures over client learning rates and seeds."""

from typing import Annotated

import typer

from simulations.cli import options, studies


def compare(
    experiment_file: options.ExperimentFile = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    architectures: studies.Architectures = "cifg,si_cifg",
    client_learning_rates: Annotated[
        str, typer.Option(metavar="RATE,...", help="Client learning rates to try for each.")
    ] = "0.3,1,3",
    server_learning_rates: studies.ServerRates = None,
    vary: studies.Vary = None,
    seeds: studies.Seeds = 1,
    jobs: studies.Jobs = None,
    out: options.Out = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    track: options.Track = None,
    cache: options.Cache = options.CACHE,
) -> None:
    """Run every combination and write one table, one figure and one page.

    The best learning rates of each architecture are chosen on validation clients.
    """
    from simulations.studies.axes import Axis
    from simulations.studies.ready import ready_study

    base = options.chosen_experiment(experiment_file, preset, overrides)
    names = studies.parse_list(architectures, str, "--architectures")
    tuned = (
        *studies.rate_axes(client_learning_rates, server_learning_rates),
        *studies.varied(vary),
    )
    study = ready_study("compare").updated(
        experiment=base,
        axes=(
            Axis(key="model.architecture", values=tuple(names), label=""),
            *tuned,
        ),
        tune=tuple(axis.called for axis in tuned),
        seeds=seeds,
    )
    studies.carry_out(
        study,
        out,
        cache=cache,
        jobs=jobs,
        overwrite=overwrite,
        resume=resume,
        as_json=as_json,
        track=track,
    )
