"""Output of a plan's privacy cost, as tables or as JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.plan import Plan
from fedsi.privacy.accounting import (
    PrivacyCost,
    accounted_plan,
    all_costs,
    calibrated,
    epsilon,
    noise_on_mean,
)
from fedsi.privacy.mechanisms.kind import Accounting
from server.runs.folder import RunFolder
from simulations.cli import options
from simulations.cli.wide_table import print_facts, print_table
from simulations.reports.privacy_statement import claim_of_plan, claim_of_run, privacy_statement
from simulations.reports.study_privacy import study_privacy_sentences
from simulations.studies.finished import read_study
from simulations.studies.study import STUDY, Study

_EXACT = 1e-6
"""Slack of a sensitivity that is exact but for rounding."""
_TRIED = (0.25, 0.35, 0.5, 0.7, 1.4, 2.0, 2.8, 4.0)
"""Noise multipliers of the last table, relative to the plan's, or to 1 if that is 0."""


def show(
    experiment: Experiment,
    population: int,
    participations: int | None,
    target_epsilon: float | None,
    *,
    as_json: bool,
    as_statement: bool,
) -> None:
    """Print the privacy cost of an experiment, calibrated first if there is a target.

    Args:
        experiment: An experiment with a noise multiplier; only settings that affect its privacy
            cost matter.
        population: Number of clients that can take part.
        participations: Most participations of a client; None for what the passes allow.
        target_epsilon: Target for which to find the noise multiplier.
        as_json: Print one line of JSON instead of tables.
        as_statement: Print a paragraph instead of tables.

    Raises:
        UserError: Same as ``accounted_plan``, ``all_costs`` and ``calibrated``.
    """
    plan = replace(accounted_plan(experiment, population), participations=participations)
    if target_epsilon is not None:
        plan = calibrated(plan, target_epsilon)
    costs = all_costs(plan)
    if as_statement:
        typer.echo(privacy_statement(claim_of_plan(plan, costs[0])))
        return
    unit = plan.noise_multiplier or 1.0
    others = [replace(plan, noise_multiplier=share * unit) for share in _TRIED]
    priced = [(other, epsilon(other)) for other in others]
    if as_json:
        typer.echo(json.dumps(_as_json(plan, costs, priced), allow_nan=False))
        return
    console = options.output()
    print_facts(console, "", _facts(plan, costs[0]))
    _print_costs(console, plan, costs)
    _print_noises(console, priced)


def show_statement_of_run(path: Path) -> None:
    """Print the privacy statement of a finished run, or of the runs of a study.

    Raises:
        UserError: The folder holds neither, or nothing that is private.
    """
    if (path / STUDY).exists():
        typer.echo(_statement_of_study(path))
        return
    run = RunFolder(path)
    summary = run.summary()
    if summary is None:
        raise UserError(f"{path} holds no finished run; name the folder of one")
    if summary.privacy is None:
        raise UserError(f"the run in {path} is not private: there is nothing to state")
    seeded = not run.experiment().privacy.secure_noise
    claim = claim_of_run(summary.privacy, seeded=seeded, vocabulary=summary.vocabulary_source)
    study = path.resolve().parents[1]
    among = [] if not (study / STUDY).exists() else [_statement_of_study(study)]
    typer.echo(" ".join([privacy_statement(claim), *among]))


def _statement_of_study(folder: Path) -> str:
    """Return what the runs of a study cost together.

    Raises:
        UserError: It has no finished run, or no private ones.
    """
    result, _ = read_study(Study.from_file(folder / STUDY), folder)
    told = list(study_privacy_sentences(result.privacy))
    if not told:
        raise UserError(f"the study in {folder} has no two private runs: there is nothing to state")
    return " ".join(told)


def _as_json(
    plan: Plan, costs: Sequence[PrivacyCost], others: Sequence[tuple[Plan, PrivacyCost]]
) -> dict[str, Any]:
    """Return all results; an infinite epsilon or rho is null."""
    return {
        "plan": asdict(plan),
        "sensitivity": costs[0].sensitivity,
        "noise_on_mean": noise_on_mean(plan),
        "costs": [_finite(asdict(cost)) for cost in costs],
        "noise_multipliers": [
            _finite(
                {
                    "noise_multiplier": other.noise_multiplier,
                    "epsilon": cost.epsilon,
                    "rho": cost.rho,
                    "noise_on_mean": noise_on_mean(other),
                }
            )
            for other, cost in others
        ],
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if value == math.inf else value for key, value in values.items()}


def _facts(plan: Plan, cost: PrivacyCost) -> dict[str, str]:
    rho = {} if cost.rho is None else {"rho (zCDP)": f"{cost.rho:.5g}"}
    return {
        "mechanism": f"{plan.mechanism}, {plan.sampling} sampling",
        "cohort": f"{plan.cohort_size} of {plan.population} clients",
        "rounds": str(plan.rounds),
        "noise multiplier": f"{plan.noise_multiplier:.5g}",
        "noise on the mean, clip norm 1": f"{noise_on_mean(plan):.4g}",
        "sensitivity, clip norm 1": f"{cost.sensitivity:.5g}{_exactness(plan, cost.slack)}",
        **rho,
    }


def _exactness(plan: Plan, slack: float | None) -> str:
    """Say whether the sensitivity of correlated noise is exact."""
    if plan.accounting is not Accounting.KEPT_APART:
        return ""
    if slack is None:
        return ", an upper bound"
    return (
        ", exact" if slack < _EXACT else f", an upper bound, at most {100 * slack:.2g} % too large"
    )


def _print_costs(console: Console, plan: Plan, costs: Sequence[PrivacyCost]) -> None:
    words = ("accountant", "adjacency", "note")
    rows = [(f"{c.epsilon:.4g}", c.accountant, c.adjacency, c.note) for c in costs]
    title = f"Epsilon at delta = {plan.delta:.3g}"
    print_table(console, title, ("epsilon", *words), rows, prose=words)


def _print_noises(console: Console, others: Sequence[tuple[Plan, PrivacyCost]]) -> None:
    rows = [
        (f"{plan.noise_multiplier:.4g}", f"{cost.epsilon:.4g}", f"{noise_on_mean(plan):.4g}")
        for plan, cost in others
    ]
    header = ("noise multiplier", "epsilon", "noise on the mean")
    print_table(console, "Other noise multipliers", header, rows)
