"""Statistics of paired runs: intervals of differences, rounds to a target, areas over rates.

Arms of a study share seeds, cohorts, initial draws and held-out clients, so they are compared by
differences within a seed or within a client.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsi.seeds import Purpose, generator

LEVEL = 0.95
"""Confidence of every interval."""
DRAWS = 2000
"""Number of resamples of a bootstrap."""
FEWEST_SEEDS = 3
"""Fewest seeds for which a difference is claimed."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its 95 % interval; infinite ends for a single value."""

    estimate: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether the interval contains zero."""
        return self.low <= 0 <= self.high

    def to_json(self) -> dict[str, float | None]:
        """Return values that JSON can represent."""
        ends = {"estimate": self.estimate, "low": self.low, "high": self.high}
        return {name: value if math.isfinite(value) else None for name, value in ends.items()}


def t_interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values and its Student t interval.

    Args:
        values: One value per seed, such as the differences of two arms; at least one.
    """
    from scipy.stats import t  # noqa: PLC0415 - it takes a second, which other commands need not

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, -math.inf, math.inf)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    half = float(t.ppf((1 + LEVEL) / 2, count - 1)) * error
    return Interval(mean, mean - half, mean + half)


def claim_interval(values: Sequence[float]) -> Interval:
    """Return ``t_interval``, with infinite ends if there are too few seeds for a claim.

    Args:
        values: One value per seed; at least one.
    """
    found = t_interval(values)
    enough = len(values) >= FEWEST_SEEDS
    return found if enough else Interval(found.estimate, -math.inf, math.inf)


def t_test_p_value(values: Sequence[float]) -> float:
    """Return the two-sided p value of Student's t that the mean is zero.

    It is 1 for too few seeds, and if a value is not a number.

    Args:
        values: One value per seed; at least one.
    """
    from scipy.stats import t  # noqa: PLC0415 - as above

    mean, count = float(np.mean(values)), len(values)
    if count < FEWEST_SEEDS or mean == 0 or math.isnan(mean):
        return 1.0
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return 2 * float(t.sf(abs(mean) / error, count - 1)) if error > 0 else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values that are corrected for their number (Holm, 1979, Scand. J. Statist. 6).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller than
    one before it, or larger than 1. Who takes those below .05 for real is wrong about any of them
    with a probability of at most .05, whatever the dependence between them.

    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for before, place in enumerate(np.argsort(p_values, kind="stable")):
        raised = p_values[place] * (len(p_values) - before)
        largest = max(largest, min(1.0, raised))
        corrected[place] = largest
    return corrected


def bootstrap_interval(
    first: Floats, second: Floats, first_weights: Floats, second_weights: Floats, seed: int
) -> Interval:
    """Return the difference of two ratios of sums and its paired bootstrap interval.

    Clients are resampled with replacement, keeping both arms' numbers of a client together; the
    ends are percentiles (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter
    13).

    Args:
        first: Numerators of the first arm, such as each client's loss: ``[clients]``.
        second: Numerators of the second arm, ``[clients]``.
        first_weights: Denominators, such as each client's targets: ``[clients]``.
        second_weights: Denominators of the second arm, ``[clients]``.
        seed: The seed of the resamples.
    """
    columns = np.stack([first, first_weights, second, second_weights], axis=1)
    clients = len(columns)
    taken = _resamples(clients, seed)
    sums = taken.astype(np.float64) @ columns
    whole = columns.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]
        estimate = float(whole[0] / whole[1] - whole[2] / whole[3])
    return _percentiles(estimate, drawn, clients)


def bootstrap_of_metric(
    metric: Callable[[Floats], float], first: Floats, second: Floats, seed: int
) -> Interval:
    """Return the difference of any metric of two arms and its paired bootstrap interval.

    It is the slow twin of ``bootstrap_interval``, for metrics that are not ratios of sums.

    Args:
        metric: Computes the metric from clients' counts ``[clients, columns]``.
        first: Counts of the first arm, ``[clients, columns]``.
        second: Counts of the second arm, ``[clients, columns]``.
        seed: The seed of the resamples.
    """
    clients = len(first)
    everyone = np.arange(clients)
    drawn = []
    for times in _resamples(clients, seed):
        taken = np.repeat(everyone, times)
        drawn.append(metric(first[taken]) - metric(second[taken]))
    estimate = metric(first) - metric(second)
    return _percentiles(estimate, np.array(drawn), clients)


def _resamples(clients: int, seed: int) -> NDArray[np.int64]:
    """Return how often each client is in each resample, ``[DRAWS, clients]``."""
    rng = generator(seed, Purpose.BOOTSTRAP)
    taken: NDArray[np.int64] = rng.multinomial(
        clients, np.full(clients, 1 / max(1, clients)), size=DRAWS
    )
    return taken


def _percentiles(estimate: float, drawn: Floats, clients: int) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if clients < 2 or not len(drawn):
        return Interval(estimate, -math.inf, math.inf)
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(estimate, float(low), float(high))


def first_at_most(losses: Sequence[float], target: float) -> int | None:
    """Return the place of the first loss not above a target, or None."""
    return next((place for place, loss in enumerate(losses) if loss <= target), None)


def area_over_logarithm(rates: Sequence[float], losses: Sequence[float], unigram: float) -> float:
    """Return the mean loss over the logarithm of a rate, by the trapezoidal rule.

    It is small for a model that is good at many rates. A loss above the unigram model's, or of a
    run that diverged, counts as the unigram loss, because differences between useless models do
    not matter.

    Args:
        rates: Ascending, at least two.
        losses: The loss at each rate, in nats; infinite for a run that diverged.
        unigram: The unigram model's loss on the same targets, in nats.
    """
    places = np.log(np.asarray(rates, np.float64))
    kept = np.minimum(np.asarray(losses, np.float64), unigram)
    return float(np.trapezoid(kept, places) / (places[-1] - places[0]))
