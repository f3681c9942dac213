"""The checks: what each expects, and whether an adapter meets it."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fedsi.errors import UserError
from simulations.conformance.adapter import (
    Adapter,
    CannotBeAskedError,
    Floats,
    RefusedError,
    Round,
    Sampler,
)
from simulations.conformance.vectors import (
    CLIPPED,
    TREE_ROUNDS,
    UPDATES,
    accounting,
    tree_covariance,
)

STATUSES = Literal["pass", "fails", "cannot be asked"]
TRIALS = 400
"""Releases, or columns, that noise is measured on."""
SIZE = 50
SURE = 5.0
"""Standard errors beyond which a statistic counts as wrong: one false alarm in a million."""
EXACT = 1e-5
"""Largest difference of sums without noise, in float32."""


@dataclass(frozen=True)
class CheckResult:
    """What a check found."""

    check: str
    expected: str
    found: str
    status: STATUSES


Check = Callable[[Adapter], tuple[bool, str]]


def _round(updates: list[list[float]], **changes: object) -> Round:
    ones = np.full(len(updates), 10)
    plain = Round(np.array(updates), ones, 1.0, 0.0, len(updates))
    return replace(plain, **changes)  # type: ignore[arg-type]


def _mean_is(adapter: Adapter, asked: Round, total: Floats) -> tuple[bool, str]:
    found = adapter.release(asked, 1)[0] * asked.cohort_size
    return bool(
        np.abs(found - total).max() < EXACT
    ), f"sum {_shown(found)}, expected {_shown(total)}"


def _shown(values: Floats) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"


def _sum(adapter: Adapter) -> tuple[bool, str]:
    updates = np.array([[0.3, -0.4], [0.0, 0.5], [0.1, 0.2]])
    return _mean_is(adapter, _round(updates.tolist()), updates.sum(0))


def _clip(adapter: Adapter) -> tuple[bool, str]:
    return _mean_is(adapter, _round(UPDATES), np.sum(CLIPPED, axis=0))


def _zero(adapter: Adapter) -> tuple[bool, str]:
    return _mean_is(adapter, _round([[0.3, 0.4], [0.0, 0.0]]), np.array([0.3, 0.4]))


def _not_finite(adapter: Adapter) -> tuple[bool, str]:
    """Others have a sum of zero; the bad client may add at most the clip norm."""
    for bad in (math.nan, math.inf):
        asked = _round([[0.3, 0.0], [-0.3, 0.0], [bad, 1.0]])
        try:
            found = adapter.release(asked, 1)[0] * asked.cohort_size
        except RefusedError as error:
            return True, f"refuses the round: {error}"
        if not np.linalg.norm(found) <= 1 + EXACT:
            return False, f"an update with {bad} gives the sum {_shown(found)}"
    return True, "the sum stays finite and within the clip norm"


def _weights(adapter: Adapter) -> tuple[bool, str]:
    asked = _round([[0.5, 0.0], [0.0, 0.5]], examples=np.array([1, 99]))
    return _mean_is(adapter, asked, np.array([0.5, 0.5]))


def _denominator(adapter: Adapter) -> tuple[bool, str]:
    asked = _round([[0.5, 0.0], [0.0, 0.5]], cohort_size=4)
    try:
        return _mean_is(adapter, asked, np.array([0.5, 0.5]))
    except RefusedError as error:
        return True, f"refuses the round: {error}"


def _noise_scale(adapter: Adapter) -> tuple[bool, str]:
    cancelling = [[sign * 0.1] * SIZE for sign in (1, -1, 1, -1)]
    asked = _round(cancelling, noise_multiplier=1.5, clip_norm=2.0)
    noise = adapter.release(asked, TRIALS) * asked.cohort_size / 3.0
    error = (float((noise**2).mean()) - 1) / math.sqrt(2 / noise.size)
    return abs(error) < SURE, f"standard deviation {3 * noise.std():.3f} on the sum, expected 3"


def _covariance(adapter: Adapter) -> tuple[bool, str]:
    size = TRIALS * SIZE
    noise = adapter.tree_noise(TREE_ROUNDS, size)
    expected = tree_covariance()
    found = noise @ noise.T / size
    variance = np.diag(expected)
    errors = np.sqrt((np.outer(variance, variance) + expected**2) / size)
    worst = float((np.abs(found - expected) / errors).max())
    return worst < SURE, f"largest deviation {worst:.1f} standard errors, {size:,} samples"


def _replacement(adapter: Adapter) -> tuple[bool, str]:
    sampler = Sampler("uniform", 20, 10, 100)
    cohorts = adapter.cohorts(sampler)
    twice = sum(len(set(one.tolist())) < len(one) for one in cohorts)
    return twice == 0, f"{twice} of {len(cohorts)} cohorts contain a client twice"


def _separation(adapter: Adapter) -> tuple[bool, str]:
    sampler = Sampler("shuffled", 40, 4, 60, min_separation=7)
    last: dict[int, int] = {}
    closest, times = sampler.rounds, Counter[int]()
    for number, cohort in enumerate(adapter.cohorts(sampler)):
        for client in cohort.tolist():
            times[client] += 1
            closest = min(closest, number - last.get(client, -sampler.rounds))
            last[client] = number
    good = closest >= sampler.min_separation and max(times.values()) <= 6
    return good, f"closest {closest} rounds apart, at most {max(times.values())} times"


def _count(adapter: Adapter) -> tuple[bool, str]:
    counts = adapter.counts(60, 100, TRIALS)
    scaled = (counts - 60) / 5.0
    mean = float(scaled.mean()) * math.sqrt(len(scaled))
    error = (float((scaled**2).mean()) - 1) / math.sqrt(2 / len(scaled))
    good = abs(mean) < SURE and abs(error) < SURE
    return good, f"mean {counts.mean():.2f}, standard deviation {counts.std():.2f}"


def _accounting(adapter: Adapter) -> tuple[bool, str]:
    told, good = [], True
    for asked, known, _ in accounting():
        found = adapter.epsilon(asked)
        good = good and found >= known * (1 - 1e-3)
        told.append(f"{found:.4g} (known {known:.4g})")
    return good, ", ".join(told)


CHECKS: dict[str, tuple[str, Check]] = {
    "sum": ("the mean is the sum of the updates over the planned cohort", _sum),
    "clip": ("each update is clipped to the norm before it is added", _clip),
    "zero": ("an update of zeros is a valid update", _zero),
    "not finite": ("an update with NaN or infinity moves the sum by at most the norm", _not_finite),
    "weights": ("every client counts the same, whatever its number of examples", _weights),
    "denominator": ("the sum is divided by the planned cohort, whoever reports", _denominator),
    "noise": ("noise of multiplier times norm on the sum, once", _noise_scale),
    "covariance": ("tree noise has the covariance of efficient estimates", _covariance),
    "replacement": ("no cohort contains a client twice", _replacement),
    "separation": ("7 rounds apart, once in each pass of 10 rounds", _separation),
    "count": ("60 of 100, with noise of standard deviation 5", _count),
    "accounting": ("epsilon is not below the known value by more than 0.1 %", _accounting),
}
"""The checks by name: what is expected, and the check."""


def conformance(adapter: Adapter) -> list[CheckResult]:
    """Return what every check finds about an adapter."""
    return [_finding(name, adapter) for name in CHECKS]


def _finding(name: str, adapter: Adapter) -> CheckResult:
    expected, check = CHECKS[name]
    try:
        good, found = check(adapter)
    except UserError:
        raise
    except CannotBeAskedError as error:
        return CheckResult(name, expected, str(error), "cannot be asked")
    except RefusedError as error:
        return CheckResult(name, expected, f"refuses the round: {error}", "fails")
    except Exception as error:
        return CheckResult(name, expected, f"raises {type(error).__name__}: {error}", "fails")
    return CheckResult(name, expected, found, "pass" if good else "fails")
