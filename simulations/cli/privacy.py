"""``fedsi privacy``: what a private run would cost, without running it."""

from collections.abc import Callable
from typing import Annotated

import typer

from fedsi.errors import UserError
from fedsi.plan import SAMPLINGS, large_delta, usual_delta
from fedsi.privacy.mechanisms.kind import Kind
from fedsi.privacy.mechanisms.table import MECHANISMS
from fedsi.schedule import SCHEDULES
from fedsi.tables import without_effect
from simulations.cli import options


def privacy(
    mechanism: Annotated[
        str, typer.Option(metavar="|".join(MECHANISMS), help="How noise is made.")
    ] = "gaussian",
    sampling: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(SAMPLINGS),
            help="How cohorts are drawn; by default the usual way for the mechanism.",
        ),
    ] = None,
    population: Annotated[int, typer.Option(min=1, help="Clients that can take part.")] = 100_000,
    cohort_size: Annotated[
        int, typer.Option(min=1, help="Clients of a round; the expected number with poisson.")
    ] = 1000,
    cohort_cap: Annotated[
        int | None, typer.Option(min=1, help="Largest cohort of poisson; by default none.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 1000,
    noise_multiplier: Annotated[
        float | None,
        typer.Option(help="Noise on the sum over the clip norm; 1 if no target is given either."),
    ] = None,
    target_epsilon: Annotated[
        float | None, typer.Option(help="Find the least noise multiplier that keeps within it.")
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="By default population^-1.1.", show_default=False)
    ] = None,
    min_separation: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rounds from one participation of a client to its next; by default 1."
        ),
    ] = None,
    participations: Annotated[
        int | None,
        typer.Option(min=1, help="Most of one client; by default as many as passes allow."),
    ] = None,
    bands: Annotated[
        int | None, typer.Option(min=1, help="Of banded noise; by default the separation.")
    ] = None,
    buffers: Annotated[
        int | None, typer.Option(min=1, help="Of BLT; by default as many as pay.")
    ] = None,
    restart_every: Annotated[
        int | None, typer.Option(min=1, help="Rounds of a tree; by default all.")
    ] = None,
    momentum: Annotated[
        float, typer.Option(min=0, max=1, help="Of the server optimizer, for BLT and banded noise.")
    ] = 0.0,
    schedule: Annotated[
        str,
        typer.Option(metavar="|".join(SCHEDULES), help="Of the server's learning rate, likewise."),
    ] = "constant",
    warm_up_rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds over which the learning rate first rises.")
    ] = None,
    final_fraction: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of it left in the last round (cosine, cooldown)."),
    ] = 0.0,
    as_json: options.Json = False,
) -> None:
    """Print the epsilon of a run by every valid accountant, and of other noise multipliers."""
    from fedsi.experiment import Experiment
    from simulations.cli.prices import show

    if noise_multiplier is not None and target_epsilon is not None:
        raise UserError("give either --noise-multiplier or --target-epsilon, not both")
    kind = MECHANISMS[mechanism]
    if participations is not None and kind.is_independent:
        raise _not_for(mechanism, "participations", lambda kind: not kind.is_independent)
    for option, is_given in {"momentum": momentum > 0, "schedule": schedule != "constant"}.items():
        if is_given and not kind.is_optimised:
            raise _not_for(mechanism, option, lambda kind: kind.is_optimised)
    # A run of these settings, so that what a run refuses is not priced.
    experiment = Experiment().updated(
        {
            "server.rounds": rounds,
            "server.cohort_size": cohort_size,
            "server.cohort_cap": cohort_cap,
            "server.sampling": sampling or next(iter(kind.samplings)),
            "server.min_separation": min_separation,
            "server.averaging": "uniform",
            "server.optimizer": "sgdm",
            "server.momentum": momentum,
            "server.schedule": schedule,
            "server.warm_up_rounds": warm_up_rounds,
            "server.final_fraction": final_fraction,
            "privacy.mechanism": mechanism,
            "privacy.noise_multiplier": 1.0 if noise_multiplier is None else noise_multiplier,
            "privacy.delta": delta,
            "privacy.bands": bands,
            "privacy.buffers": buffers,
            "privacy.restart_every": restart_every,
        }
    )
    show(experiment, population, participations, target_epsilon, as_json=as_json)
    caution = large_delta(experiment.privacy.delta or usual_delta(population), population)
    if caution:
        options.messages().print(f"warning: {caution}", highlight=False, soft_wrap=True)


def _not_for(mechanism: str, option: str, owns: Callable[[Kind], bool]) -> UserError:
    """Return the error of an option that the mechanism makes nothing of."""
    owners = [name for name in MECHANISMS if owns(MECHANISMS[name])]
    return UserError(without_effect(f"--{option}", "--mechanism", mechanism, owners))
