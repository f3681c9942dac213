"""``fedsi lengths``: position encodings at sequence lengths beyond the training length."""

from typing import Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options, studies
from simulations.cli.option_groups import grouped

_PRESET = "length"


@grouped
def lengths(
    *,
    base: options.Base,
    positions: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Position encodings to try; by default all."),
    ] = None,
    sequence_lengths: Annotated[
        str, typer.Option("--lengths", metavar="LENGTH,...", help="Lengths to evaluate at.")
    ] = "20,40,80,160",
    seeds: studies.Seeds = 3,
    how: studies.How,
) -> None:
    """Train a Transformer with each position encoding and evaluate it at longer sequences.

    By default the experiment is the preset ``length``.
    """
    from fedsi.models.table import architecture
    from simulations.studies.axes import Axis
    from simulations.studies.ready import ready_study

    experiment = base.experiment(usual=_PRESET)
    name = experiment.model.architecture
    if "positions" not in architecture(name).keys:
        raise UserError(
            "position encodings are parts of a Transformer, and this experiment has "
            f"model.architecture={name}; set model.architecture=transformer"
        )
    ready = ready_study("lengths")
    every = ",".join(str(value) for value in ready.axes[0].values)
    names = studies.parse_list(positions or every, str, "--positions")
    study = ready.updated(
        experiment=experiment,
        axes=(Axis(key="model.positions", values=tuple(names), label=""),),
        lengths=tuple(sorted(studies.parse_lengths(sequence_lengths, "--lengths"))),
        seeds=seeds,
    )
    studies.carry_out(study, how)
