"""``fedsi privacy``: epsilon of a private run, without running it."""

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
        str, typer.Option(metavar="|".join(MECHANISMS), help="Noise mechanism.")
    ] = "gaussian",
    sampling: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(SAMPLINGS),
            help="Sampling of cohorts; by default the usual one for the mechanism.",
        ),
    ] = None,
    population: Annotated[int, typer.Option(min=1, help="Clients that can take part.")] = 100_000,
    cohort_size: Annotated[
        int, typer.Option(min=1, help="Clients per round; with poisson their expected number.")
    ] = 1000,
    cohort_cap: Annotated[
        int | None, typer.Option(min=1, help="Largest cohort of poisson; by default no cap.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 1000,
    noise_multiplier: Annotated[
        float | None,
        typer.Option(
            help="Noise on the sum relative to the clip norm; without a target by default 1."
        ),
    ] = None,
    target_epsilon: Annotated[
        float | None, typer.Option(help="Find the smallest noise multiplier for this epsilon.")
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="Delta; by default population^-1.1.", show_default=False)
    ] = None,
    min_separation: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rounds from one participation of a client to the next; by default 1."
        ),
    ] = None,
    participations: Annotated[
        int | None,
        typer.Option(min=1, help="Most of a client; by default as many as the passes allow."),
    ] = None,
    bands: Annotated[
        int | None, typer.Option(min=1, help="Bands of banded noise; by default the separation.")
    ] = None,
    buffers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="BLT buffers; by default, added while each improves the error by at least 1 %.",
        ),
    ] = None,
    restart_every: Annotated[
        int | None, typer.Option(min=1, help="Rounds per tree; by default all.")
    ] = None,
    momentum: Annotated[
        float, typer.Option(min=0, max=1, help="Server momentum, for BLT and banded noise.")
    ] = 0.0,
    schedule: Annotated[
        str,
        typer.Option(
            metavar="|".join(SCHEDULES), help="Server schedule, for BLT and banded noise."
        ),
    ] = "constant",
    warm_up_rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds over which the learning rate rises.")
    ] = None,
    final_fraction: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the rate in the last round (cosine, cooldown)."),
    ] = 0.0,
    as_json: options.Json = False,
) -> None:
    """Print epsilon of a run by every valid accountant, and of other noise multipliers."""
    from fedsi.experiment import Experiment
    from simulations.cli.privacy_cost import show

    if noise_multiplier is not None and target_epsilon is not None:
        raise UserError("give either --noise-multiplier or --target-epsilon, not both")
    kind = MECHANISMS[mechanism]
    if participations is not None and kind.is_independent:
        raise _not_for(mechanism, "participations", lambda kind: not kind.is_independent)
    for option, is_given in {"momentum": momentum > 0, "schedule": schedule != "constant"}.items():
        if is_given and not kind.is_optimised:
            raise _not_for(mechanism, option, lambda kind: kind.is_optimised)
    # A run with these settings, so that settings that a run refuses are refused here too.
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
    """Return the error for an option that the mechanism does not use."""
    owners = [name for name in MECHANISMS if owns(MECHANISMS[name])]
    return UserError(without_effect(f"--{option}", "--mechanism", mechanism, owners))
