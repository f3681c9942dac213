"""``fedsi lengths``: position encodings at sequence lengths beyond the training length."""

from typing import Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options, studies

_PRESET = "length"


def lengths(
    experiment_file: options.ExperimentFile = None,
    preset: options.Preset = None,
    overrides: options.Overrides = None,
    positions: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Position encodings to try; by default all."),
    ] = None,
    sequence_lengths: Annotated[
        str, typer.Option("--lengths", metavar="LENGTH,...", help="Lengths to evaluate at.")
    ] = "20,40,80,160",
    seeds: studies.Seeds = 3,
    jobs: studies.Jobs = None,
    out: options.Out = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    track: options.Track = None,
    cache: options.Cache = options.CACHE,
) -> None:
    """Train a Transformer with each position encoding and evaluate it at longer sequences.

    By default the experiment is the preset ``length``.
    """
    from fedsi.models.table import architecture
    from simulations.studies.axes import Axis
    from simulations.studies.ready import ready_study

    usual = None if experiment_file or preset else _PRESET
    base = options.chosen_experiment(experiment_file, preset or usual, overrides)
    if "positions" not in architecture(base.model.architecture).keys:
        raise UserError(
            "position encodings are parts of a Transformer, and this experiment has "
            f"model.architecture={base.model.architecture}; set model.architecture=transformer"
        )
    ready = ready_study("lengths")
    every = ",".join(str(value) for value in ready.axes[0].values)
    names = studies.parse_list(positions or every, str, "--positions")
    study = ready.updated(
        experiment=base,
        axes=(Axis(key="model.positions", values=tuple(names), label=""),),
        lengths=tuple(sorted(studies.parse_lengths(sequence_lengths, "--lengths"))),
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
