"""Noise of explicit matrix mechanisms, compared with that of BLT.

``python -m simulations.benchmarks.correlated_noise ROUNDS SEPARATION PARTICIPATIONS`` prints the
table. Each explicit mechanism is a Toeplitz matrix whose inverse has a short first column:

* lambda-CGD: ``1, -lambda``;
* banded inverse square root (arXiv 2505.12128): the first coefficients of ``(1 - x)^(1/2)``;
* gamma-BIFR, a banded inverse fractional root: those of ``(1 - x)^gamma``.

Their parameters are searched for the least noise. Columns are divided by their norms where that
helps and the sensitivity is proven. Values are sensitivity times root mean squared error.
"""

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from fedsi.plan import Plan
from fedsi.privacy.mechanisms.blt import BufferedToeplitz
from fedsi.privacy.mechanisms.table import build_mechanism
from fedsi.privacy.mechanisms.toeplitz import (
    column_norms,
    inverse_column,
    toeplitz_sensitivities,
)
from fedsi.privacy.mechanisms.workload import workload_of

_SLACK = 1e-12
"""Rounding that is not taken for an increase."""
_BANDS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def fractional_root(gamma: float, bands: int) -> NDArray[np.float64]:
    """Return the first coefficients of ``(1 - x)^gamma``, ``[bands]``."""
    k = np.arange(1, bands)
    return np.concatenate([[1.0], np.cumprod((k - 1 - gamma) / k)])


def toeplitz_losses(plan: Plan, short: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    """Yield the losses of the mean and of the last iterate, without and with norms if proven.

    Args:
        plan: Rounds, separation and participations; its mechanism is ignored.
        short: The coefficients of C^-1.
    """
    impulse = np.eye(1, plan.rounds)[0]
    first = lfilter([1.0], short, impulse)
    inverse = lfilter(short, [1.0], impulse)
    if first.min() < -_SLACK or np.diff(first).max() > _SLACK:
        return
    choices = [np.ones(plan.rounds)]
    if np.all(first[1:-1] ** 2 <= first[:-2] * first[2:] + _SLACK):
        choices.append(column_norms(first))
    for norms in choices:
        sensitivity = toeplitz_sensitivities(plan, first, norms)[-1]
        mean, last = workload_of(plan).scaled_errors(inverse, norms)
        yield sensitivity * math.sqrt(mean), sensitivity * math.sqrt(last)


def least_noise(plan: Plan, candidates: Iterable[NDArray[np.float64]]) -> tuple[float, float, int]:
    """Return the losses of the candidate whose mean has the least noise, and its vectors kept."""
    return min(
        (*each, len(short) - 1) for short in candidates for each in toeplitz_losses(plan, short)
    )


def compared(plan: Plan) -> dict[str, tuple[float, float, int]]:
    """Return the losses of the mean and of the last iterate, and the vectors kept, by mechanism."""
    grid = np.linspace(0.02, 0.98, 49).tolist()
    bands = [count for count in _BANDS if count <= plan.rounds]
    found = {}
    for name, buffers, objective in [
        ("BLT, one buffer", 1, "mean"),
        ("BLT", None, "mean"),
        ("BLT, objective `last`", None, "last"),
    ]:
        found[name] = _losses_of_blt(replace(plan, buffers=buffers, objective=objective))
    found["banded inverse square root"] = least_noise(
        plan, (fractional_root(0.5, count) for count in bands)
    )
    found["lambda-CGD"] = least_noise(plan, (np.array([1.0, -share]) for share in grid))
    found["gamma-BIFR"] = least_noise(
        plan, (fractional_root(gamma, count) for gamma in grid for count in bands)
    )
    return found


def _losses_of_blt(plan: Plan) -> tuple[float, float, int]:
    made = build_mechanism(plan)
    assert isinstance(made, BufferedToeplitz)  # noqa: S101 - the plan's mechanism is BLT
    inverse = inverse_column(np.array(made.decays), np.array(made.weights), plan.rounds)
    mean, last = workload_of(plan).scaled_errors(inverse, made.norms)
    loss = made.sensitivity * math.sqrt(mean), made.sensitivity * math.sqrt(last)
    return *loss, len(made.decays)


def planned(rounds: int, separation: int, participations: int) -> Plan:
    """Return a plan of BLT over shuffled passes."""
    return Plan(
        mechanism="blt",
        sampling="shuffled",
        population=separation,
        cohort_size=1,
        rounds=rounds,
        noise_multiplier=1.0,
        delta=1e-6,
        min_separation=separation,
        participations=participations,
    )


def main() -> None:
    """Print the table for the plan that is given."""
    rounds, separation, participations = map(int, sys.argv[1:])
    lines = ["| mechanism | vectors kept | mean | last |", "|---|---|---|---|"]
    for name, (mean, last, kept) in compared(planned(rounds, separation, participations)).items():
        lines.append(f"| {name} | {kept} | {mean:.2f} | {last:.2f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
