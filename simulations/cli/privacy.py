"""``fedsi privacy``: epsilon of a private run, without running it."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fedsi.errors import UserError
from fedsi.privacy.mechanisms.kind import Kind
from fedsi.privacy.mechanisms.table import MECHANISMS
from fedsi.tables import without_effect
from simulations.cli import options
from simulations.cli.key_options import KeyCommand, given_keys

_BASE: dict[str, Any] = {
    "privacy.mechanism": "gaussian",
    "server.rounds": 1000,
    "server.cohort_size": 1000,
    "server.averaging": "uniform",
    "server.optimizer": "sgdm",
    "server.momentum": 0.0,
}
"""Settings of the run that is priced, unless they are given."""
_SERVER = (
    "rounds", "cohort_size", "sampling", "cohort_cap", "min_separation", "groups", "momentum",
    "schedule", "warm_up_rounds", "final_fraction",
)  # fmt: skip
"""Keys of the server that bear on the cost."""
_PRIVACY = ("mechanism", "noise_multiplier", "target_epsilon", "delta")

_TARGET = 2.0
"""Epsilon at which ways are compared, unless it is given."""
_COMPARED = {
    "server.rounds", "server.cohort_size", "server.momentum", "server.schedule",
    "server.warm_up_rounds", "server.final_fraction", "privacy.delta",
}  # fmt: skip
"""Keys that are the same for all ways of a comparison."""


class PrivacyCommand(KeyCommand):
    """The command, with the keys that bear on the cost and those of single mechanisms."""

    other_defaults = {  # noqa: RUF012
        **{key: str(value) for key, value in _BASE.items()},
        "server.sampling": "the mechanism's usual one",
        "privacy.noise_multiplier": "1 without a target",
    }

    @property
    def keys(self) -> list[str]:  # type: ignore[override]
        """Names of the keys."""
        from fedsi.experiment.privacy import OWN_KEYS

        named = {"privacy": (*_PRIVACY, *OWN_KEYS), "server": _SERVER}
        return [f"{section}.{key}" for section, keys in named.items() for key in keys]


def privacy(
    ctx: typer.Context,
    population: Annotated[int, typer.Option(min=1, help="Clients that can take part.")] = 100_000,
    participations: Annotated[
        int | None,
        typer.Option(min=1, help="Most of one client; by default as many as passes allow."),
    ] = None,
    as_statement: Annotated[
        bool, typer.Option("--statement", help="Print a paragraph for a paper or an assessment.")
    ] = False,
    as_comparison: Annotated[
        bool,
        typer.Option(
            "--compare", help="Hold four ways to sample and to make noise against each other."
        ),
    ] = False,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw that comparison, as .png and .svg."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Make the statement of this finished run or study."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Print epsilon of a run by every valid accountant, and of other noise multipliers."""
    from fedsi.data.cautions import privacy_cautions
    from fedsi.experiment import Experiment
    from simulations.cli.privacy_cost import show

    if as_json and as_statement:
        raise UserError("give either --statement or --json, not both")
    if run:
        if not as_statement:
            raise UserError("--run is for --statement; a run's summary has its epsilon")
        from simulations.cli.privacy_cost import show_statement_of_run

        show_statement_of_run(run)
        return

    given = given_keys(ctx)
    if as_comparison:
        _compare(given, population, figure, as_json=as_json, as_statement=as_statement)
        return
    if figure is not None:
        raise UserError("--figure draws a comparison; add --compare")
    target, noise = (given.get(f"privacy.{key}") for key in ("target_epsilon", "noise_multiplier"))
    if noise is not None and target is not None:
        raise UserError("give either --noise-multiplier or --target-epsilon, not both")
    kind = MECHANISMS[given.get("privacy.mechanism", _BASE["privacy.mechanism"])]
    _check_used(kind, given, participations)
    # A run with these settings, so that settings that a run refuses are refused here too.
    base = {**_BASE, "server.sampling": next(iter(kind.samplings))}
    if target is None:
        base["privacy.noise_multiplier"] = 1.0
    experiment = Experiment().updated({**base, **given})
    priced = experiment.updated({"privacy.noise_multiplier": 1.0, "privacy.target_epsilon": None})
    show(
        priced if target is not None else experiment,
        population,
        participations,
        experiment.privacy.target_epsilon,
        as_json=as_json,
        as_statement=as_statement,
    )
    for caution in privacy_cautions(experiment, population):
        options.messages().print(f"warning: {caution}", highlight=False, soft_wrap=True)


def _compare(
    given: dict[str, Any],
    population: int,
    figure: Path | None,
    *,
    as_json: bool,
    as_statement: bool,
) -> None:
    """Print the comparison.

    Raises:
        UserError: An option that each way chooses for itself.
    """
    from fedsi.experiment import Experiment
    from fedsi.privacy.accounting import accounted_plan
    from simulations.cli.privacy_comparison import compare

    if as_statement:
        raise UserError("give either --compare or --statement, not both")
    target = given.pop("privacy.target_epsilon", _TARGET)
    chosen = sorted(given.keys() - _COMPARED)
    if chosen:
        option = chosen[0].rpartition(".")[2].replace("_", "-")
        raise UserError(f"--{option} has no effect with --compare; leave it out")
    base = {**_BASE, "server.sampling": "poisson", "privacy.noise_multiplier": 1.0}
    plan = accounted_plan(Experiment().updated({**base, **given}), population)
    compare(plan, target, figure, as_json=as_json)


def _check_used(kind: Kind, given: dict[str, Any], participations: int | None) -> None:
    """Refuse options that the mechanism does not use.

    Raises:
        UserError: There is one; names the mechanisms that use it.
    """
    mechanism = given.get("privacy.mechanism", _BASE["privacy.mechanism"])
    if participations is not None and kind.is_independent:
        raise _not_for(mechanism, "participations", lambda kind: not kind.is_independent)
    if kind.is_optimised:
        return
    for option, unused in {"momentum": 0, "schedule": "constant"}.items():
        if given.get(f"server.{option}", unused) != unused:
            raise _not_for(mechanism, option, lambda kind: kind.is_optimised)


def _not_for(mechanism: str, option: str, owns: Callable[[Kind], bool]) -> UserError:
    """Return the error for an option that the mechanism does not use."""
    owners = [name for name in MECHANISMS if owns(MECHANISMS[name])]
    return UserError(without_effect(f"--{option}", "--mechanism", mechanism, owners))
