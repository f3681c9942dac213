"""Empirical lower bounds on epsilon from canaries: an audit of the claimed epsilon.

A bound above the claimed epsilon refutes the claim at the stated confidence. A bound below it
proves nothing, because the attack may be weak.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedsi.privacy.zcdp import epsilon_of

Scores = NDArray[np.float64]
Included = NDArray[np.bool_]

CONFIDENCE = 0.95
CHECKS = 4
"""Number of checks that share the error probability: three bounds, and the participations."""
ERROR = (1 - CONFIDENCE) / CHECKS
CANARIES_PER_ROUND = 8
"""Canaries per round of a window, from which the covariance of the rounds is estimated."""
GUESSED_SHARE = 0.1
"""Share of canaries with the largest scores, and of those with the smallest, that are guessed
on."""


@dataclass(frozen=True)
class Audit:
    """The result of an audit."""

    canaries: int
    included: int
    mean_in: float
    """Mean score of the canaries that took part."""
    mean_out: float
    deviation_out: float
    """Standard deviation of the scores of the canaries that did not take part."""
    guesses: int
    correct: int
    counting_epsilon: float
    """Lower bound from the number of correct guesses; it assumes nothing about the scores."""
    gaussian_epsilon: float
    """Lower bound from means and deviations; it assumes normally distributed scores."""
    rounds_correct: int
    """Correct guesses by ``canary_distances``, which look at each round, out of as many guesses."""
    rounds_epsilon: float
    """Lower bound from these guesses; it assumes nothing about the scores."""
    participations_likelihood: float
    """Probability of so many participations at the accounted sampling rate."""

    @property
    def epsilon(self) -> float:
        """The largest of the bounds; each has its share of the error probability."""
        return max(self.counting_epsilon, self.gaussian_epsilon, self.rounds_epsilon)

    @property
    def participations_fit(self) -> bool:
        """Whether clients took part no more often than is accounted for."""
        return self.participations_likelihood >= ERROR

    def refutes(self, claimed: float | None) -> bool:
        """Whether a bound exceeds the claimed epsilon, or clients took part too often.

        False if nothing is claimed (None).
        """
        return claimed is not None and (self.epsilon > claimed or not self.participations_fit)


def audit(by_round: Scores, included: Included, delta: float, likelihood: float = 1.0) -> Audit:
    """Bound epsilon from below with confidence ``CONFIDENCE``.

    Args:
        by_round: Score of each canary in each release, ``[rounds, canaries]``; at least 4 canaries
            took part and at least 4 did not.
        included: Which canaries took part, ``[canaries]``.
        delta: The delta of the claim.
        likelihood: The probability of the clients' participations.
    """
    scores = by_round.sum(0)
    guesses, correct = guess(scores, included)
    _, rounds_correct = guess(canary_distances(by_round), included)
    inside, outside = scores[included], scores[~included]
    return Audit(
        canaries=len(scores),
        included=len(inside),
        mean_in=float(inside.mean()),
        mean_out=float(outside.mean()),
        deviation_out=float(outside.std(ddof=1)),
        guesses=guesses,
        correct=correct,
        counting_epsilon=counting_bound(len(scores), guesses, correct, delta, ERROR),
        gaussian_epsilon=gaussian_bound(inside, outside, delta, ERROR),
        rounds_correct=rounds_correct,
        rounds_epsilon=counting_bound(len(scores), guesses, rounds_correct, delta, ERROR),
        participations_likelihood=likelihood,
    )


def canary_distances(by_round: Scores) -> Scores:
    """Return how far each canary's scores are from what noise alone would produce.

    This is the squared Mahalanobis norm of a canary's scores, with the covariance between rounds
    estimated from all canaries, in windows of rounds. Noise that can be predicted from other rounds
    has almost no variance left, so canaries that took part stand out, although the sum over rounds
    may not show them.

    Args:
        by_round: ``[rounds, canaries]``.

    Returns:
        ``[canaries]``. Which canaries took part is not used.
    """
    rounds, count = by_round.shape
    window = max(1, min(rounds, count // CANARIES_PER_ROUND))
    total = np.zeros(count)
    for first in range(0, rounds, window):
        part = by_round[first : first + window]
        covariance = part @ part.T / count
        floor = 1e-9 * max(float(np.trace(covariance)) / len(part), 1e-30)
        total += (part * np.linalg.solve(covariance + floor * np.eye(len(part)), part)).sum(0)
    return total


def chance_of_participations(times: NDArray[np.int32], rounds: int, rate: float) -> float:
    """Return the probability that clients take part at least this often at a sampling rate.

    It is twice the smaller of two probabilities: that of the total, and that of the most frequent
    client.

    Args:
        times: Number of rounds in which each client took part, ``[population]``.
        rounds: Number of rounds.
        rate: The probability of taking part in one round.
    """
    total = float(stats.binom.sf(int(times.sum()) - 1, rounds * len(times), rate))
    most = len(times) * float(stats.binom.sf(int(times.max()) - 1, rounds, rate))
    return min(1.0, 2 * min(total, most))


def guess(scores: Scores, included: Included) -> tuple[int, int]:
    """Guess that canaries with large scores took part and those with small scores did not.

    Returns:
        The number of guesses and the number of correct ones.
    """
    each = max(1, round(GUESSED_SHARE * len(scores)))
    order = np.argsort(scores, kind="stable")
    right = included[order[-each:]].sum() + (~included[order[:each]]).sum()
    return 2 * each, int(right)


def counting_bound(canaries: int, guesses: int, correct: int, delta: float, error: float) -> float:
    """Return the largest epsilon that this many correct guesses refute.

    Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run" (arXiv 2305.08846),
    theorem 5.2: with (epsilon, delta) and fair coins, the number of correct guesses is dominated by
    a binomial with success probability ``e^eps / (1 + e^eps)``, up to a probability that depends on
    delta.
    """
    low, high = 0.0, 30.0
    if _tail(canaries, guesses, correct, low, delta) > error:
        return 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if _tail(canaries, guesses, correct, middle, delta) > error:
            high = middle
        else:
            low = middle
    return low


def _tail(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return the probability of at least this many correct guesses."""
    success = 1 / (1 + math.exp(-epsilon))
    exact = float(stats.binom.sf(correct - 1, guesses, success))
    fewer = np.arange(1, correct + 1)
    just_below = np.cumsum(stats.binom.pmf(correct - fewer, guesses, success))
    slack = float((just_below / fewer).max(initial=0.0))
    return exact + 2 * canaries * delta * slack


def gaussian_bound(inside: Scores, outside: Scores, delta: float, error: float) -> float:
    """Return the epsilon of distinguishing two normal distributions with conservative estimates.

    The difference of the means is taken at its lower confidence bound (Welch's), the deviation at
    the upper bound of the larger one, each with half of the error probability. Epsilon is that of
    the Gaussian mechanism with this ratio.
    """
    variances = inside.var(ddof=1), outside.var(ddof=1)
    spread = math.sqrt(variances[0] / len(inside) + variances[1] / len(outside))
    freedom = min(len(inside), len(outside)) - 1
    shift = inside.mean() - outside.mean() - stats.t.ppf(1 - error / 2, freedom) * spread
    if shift <= 0:
        return 0.0
    deviation = math.sqrt(max(variances) * freedom / stats.chi2.ppf(error / 2, freedom))
    mu = float(shift) / max(deviation, 1e-12)
    return epsilon_of(mu**2 / 2, delta)
