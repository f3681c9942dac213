"""Output of ``fedsi privacy --compare``: ways to run the same plan, side by side."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import typer
from rich.console import Console

from fedsi.plan import Plan
from fedsi.privacy.accounting import noise_on_mean
from fedsi.privacy.alternatives import Alternative, alternatives, at_equal_error
from simulations.cli import options
from simulations.cli.wide_table import print_table
from simulations.reports.figures import save_figure
from simulations.reports.privacy_figure import privacy_figure

_LEVELS = 9
"""Levels of epsilon in the figure, from a quarter of the target to four times it."""


def compare(plan: Plan, target_epsilon: float, figure: Path | None, *, as_json: bool) -> None:
    """Print each way at the target epsilon, and the epsilon of each at the error of the last.

    Args:
        plan: Provides population, cohort size, rounds, delta and the server's learning rates.
        target_epsilon: Epsilon of all ways in the first table.
        figure: Where to draw error against epsilon, without a suffix; None for no figure.
        as_json: Print one line of JSON instead of tables.

    Raises:
        UserError: No noise reaches the target.
    """
    with options.messages().status("optimising noise and computing epsilons"):
        found = alternatives(plan, target_epsilon)
        equal = at_equal_error(plan, found[-1].error)
        if figure is not None:
            levels = (target_epsilon * np.geomspace(0.25, 4, _LEVELS)).tolist()
            save_figure(privacy_figure([alternatives(plan, level) for level in levels]), figure)
    if as_json:
        rows = {"at_target": found, "at_equal_error": equal}
        as_dicts = {name: list(map(_as_json, row)) for name, row in rows.items()}
        typer.echo(json.dumps(as_dicts, allow_nan=False))
        return
    console = options.output()
    console.print(_facts(plan))
    _print(console, found, equal, target_epsilon)
    if figure is not None:
        console.print(f"figure: {figure.with_suffix('.png')}", soft_wrap=True)


def _as_json(found: Alternative) -> dict[str, object]:
    return {**asdict(found), "noise_on_mean": noise_on_mean(found.plan)}


def _facts(plan: Plan) -> str:
    return (
        f"{plan.rounds:,} rounds of {plan.cohort_size:,} of {plan.population:,} clients, "
        f"delta {plan.delta:.3g}"
    )


def _print(
    console: Console, found: list[Alternative], equal: list[Alternative], target: float
) -> None:
    last = found[-1]
    title = f"At epsilon = {target:g}; last column: epsilon at the error of {last.name}"
    header = ("way", "groups", "noise multiplier", "error", "share", "epsilon")
    rows = [
        (
            each.name,
            str(each.plan.groups) if each.plan.sampling == "cyclic" else "",
            f"{each.plan.noise_multiplier:.4g}",
            f"{each.error:.4g}",
            f"{each.error / last.error:.3f}",
            f"{same.epsilon:.3g}",
        )
        for each, same in zip(found, equal, strict=True)
    ]
    print_table(console, title, header, rows, prose=("way",))
