"""``fedsi tradeoff``: utility against privacy, for architectures over levels of noise and seeds."""

from typing import TYPE_CHECKING, Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options, studies
from simulations.cli.option_groups import grouped

if TYPE_CHECKING:
    from simulations.studies.axes import Axis

_ARCHITECTURES = "cifg,si_cifg"
_EPSILONS = "inf,8,4,2,1"
_FACTORS = (0.3, 1.0, 3.0)
"""Server learning rates that are tried, in units of the experiment's."""


@grouped
def tradeoff(
    *,
    base: options.Base,
    architectures: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...", help=f"Architectures to compare. By default {_ARCHITECTURES}."
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=a,b",
            help="A key whose values are compared instead, such as model.init_from=none,RUN.",
        ),
    ] = None,
    target_epsilons: Annotated[
        str | None,
        typer.Option(
            metavar="EPSILON,...",
            help=f"What the whole run may cost; inf is without noise. By default {_EPSILONS}.",
        ),
    ] = None,
    noise_multipliers: Annotated[
        str | None,
        typer.Option(metavar="NUMBER,...", help="Noise instead; 0 is without noise."),
    ] = None,
    client_learning_rates: Annotated[
        str | None,
        typer.Option(
            metavar="RATE,...",
            help="Client learning rates to try for each; by default the experiment's.",
        ),
    ] = None,
    server_learning_rates: Annotated[
        str | None,
        typer.Option(
            metavar="RATE,...",
            help="Server learning rates to try for each; unless something else is tuned, by "
            "default 0.3, 1 and 3 times the experiment's.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tune nothing: a third of the runs.")
    ] = False,
    vary: studies.Vary = None,
    seeds: studies.Seeds = 1,
    how: studies.How,
) -> None:
    """Compare architectures at each level of privacy: utility against epsilon, and a page.

    The best learning rates of each architecture at each level are chosen on validation clients.
    """
    from fedsi.experiment import parse_overrides
    from simulations.studies.privacy_levels import without_noise
    from simulations.studies.ready import ready_study

    named = options.named(base.experiment_file, base.preset)
    experiment = without_noise(named, parse_overrides(base.overrides or []))
    compared = _compared(architectures, compare)
    tuned = (
        *studies.rate_axes(client_learning_rates, server_learning_rates),
        *studies.varied(vary),
    )
    if quick and tuned:
        raise UserError(f"--quick tunes nothing, and {tuned[0].called} is to be tuned; give one")
    if not quick and not tuned:
        tuned = studies.rate_axes(None, _rates_around(experiment.server.learning_rate))
    study = ready_study("tradeoff").updated(
        experiment=experiment,
        axes=(
            compared,
            _levels(target_epsilons, noise_multipliers),
            *tuned,
        ),
        compare=(compared.called,),
        tune=tuple(axis.called for axis in tuned),
        seeds=seeds,
    )
    studies.carry_out(study, how)


def _compared(architectures: str | None, compare: str | None) -> "Axis":
    """Return the axis of what is compared."""
    from simulations.studies.axes import Axis

    if compare is None:
        names = studies.parse_list(architectures or _ARCHITECTURES, str, "--architectures")
        return Axis(key="model.architecture", values=tuple(names), label="")
    if architectures is not None:
        raise UserError("give either --architectures or --compare KEY=a,b, not both")
    (axis,) = studies.varied([compare], "--compare")
    return axis


def _rates_around(rate: float) -> str:
    return ",".join(f"{factor * rate:.3g}" for factor in _FACTORS)


def _levels(epsilons: str | None, multipliers: str | None) -> "Axis":
    """Return the axis of noise, the least noise first."""
    from simulations.studies.privacy_levels import EPSILON, NOISE, noise_axis

    if epsilons and multipliers:
        raise UserError("give either --target-epsilons or --noise-multipliers, not both")
    if multipliers:
        values = studies.parse_list(multipliers, float, "--noise-multipliers")
        return noise_axis(NOISE, sorted(values))
    values = studies.parse_list(epsilons or _EPSILONS, float, "--target-epsilons")
    return noise_axis(EPSILON, sorted(values, reverse=True))
