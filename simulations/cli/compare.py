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

    The best client learning rate of each architecture is chosen on validation clients.
    """
    from simulations.studies.axes import Axis
    from simulations.studies.ready import ready_study

    base = options.chosen_experiment(experiment_file, preset, overrides)
    names = studies.parse_list(architectures, str, "--architectures")
    rates = studies.parse_list(client_learning_rates, float, "--client-learning-rates")
    others = studies.varied(vary)
    study = ready_study("compare").updated(
        experiment=base,
        axes=(
            Axis(key="model.architecture", values=tuple(names), label=""),
            Axis(key="client.learning_rate", values=tuple(rates), label="lr"),
            *others,
        ),
        tune=("client.learning_rate", *(axis.called for axis in others)),
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
