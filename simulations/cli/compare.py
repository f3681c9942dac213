"""``fedsi compare``: architectures over client learning rates and seeds."""

from typing import Annotated

import typer

from simulations.cli import options, studies
from simulations.cli.option_groups import grouped
from simulations.cli.unreached import tell_unreached


@grouped
def compare(
    *,
    base: options.Base,
    architectures: studies.Architectures = "cifg,si_cifg",
    client_learning_rates: Annotated[
        str, typer.Option(metavar="RATE,...", help="Client learning rates to try for each.")
    ] = "0.3,1,3",
    server_learning_rates: studies.ServerRates = None,
    vary: studies.Vary = None,
    seeds: studies.Seeds = 1,
    how: studies.How,
) -> None:
    """Compare architectures, each at its best learning rates: a table, a figure and a page.

    The best learning rates of each architecture are chosen on validation clients.
    """
    from simulations.studies.axes import Axis
    from simulations.studies.ready import ready_study

    names = studies.parse_list(architectures, str, "--architectures")
    tuned = (
        *studies.rate_axes(client_learning_rates, server_learning_rates),
        *studies.varied(vary),
    )
    study = ready_study("compare").updated(
        experiment=base.experiment(),
        axes=(
            Axis(key="model.architecture", values=tuple(names), label=""),
            *tuned,
        ),
        tune=tuple(axis.called for axis in tuned),
        seeds=seeds,
    )
    tell_unreached([study], base.overrides or [])
    studies.carry_out(study, how)
