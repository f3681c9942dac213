"""Lower bounds on epsilon from what canaries show: an attempt to refute a claim.

A bound above the claimed epsilon refutes the claim, at the stated confidence. A bound below it
proves nothing: the attack may be weak.
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
"""Each of the three bounds and the check of participations may err with an equal share."""
ERROR = (1 - CONFIDENCE) / CHECKS
CANARIES_PER_ROUND = 8
"""Canaries from which the covariance of rounds is estimated, for each round of a window."""
GUESSED_SHARE = 0.1
"""Canaries with the largest and with the smallest scores about which a guess is made, each."""


@dataclass(frozen=True)
class Audit:
    """What an audit found."""

    canaries: int
    included: int
    mean_in: float
    """Mean score of the canaries that took part."""
    mean_out: float
    deviation_out: float
    """Standard deviation of the scores of those that did not."""
    guesses: int
    correct: int
    counting_epsilon: float
    """Lower bound from the number of correct guesses; it assumes nothing about the scores."""
    gaussian_epsilon: float
    """Lower bound from means and deviations; it takes the scores for normal."""
    rounds_correct: int
    """Correct guesses by ``distances``, which look at rounds one by one, of as many."""
    rounds_epsilon: float
    """Lower bound from these; it assumes nothing either."""
    participations_likelihood: float
    """How likely so many participations are at the sampling rate that is accounted for."""

    @property
    def epsilon(self) -> float:
        """The largest of the bounds; each holds but for its share of the error probability."""
        return max(self.counting_epsilon, self.gaussian_epsilon, self.rounds_epsilon)

    @property
    def participations_fit(self) -> bool:
        """Whether clients took part as often as is accounted for."""
        return self.participations_likelihood >= ERROR

    def refutes(self, claimed: float | None) -> bool:
        """Whether a bound is above a claimed epsilon, or it is not for these participations.

        None claims nothing.
        """
        return claimed is not None and (self.epsilon > claimed or not self.participations_fit)


def audit(by_round: Scores, included: Included, delta: float, likelihood: float = 1.0) -> Audit:
    """Bound epsilon from below with ``CONFIDENCE``.

    Args:
        by_round: What each release shows of each canary, ``[rounds, canaries]``; at least 4
            canaries in and 4 out.
        included: Which of them took part, ``[canaries]``.
        delta: Of the claim.
        likelihood: Of the clients' participations.
    """
    scores = by_round.sum(0)
    guesses, correct = guess(scores, included)
    _, rounds_correct = guess(distances(by_round), included)
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


def distances(by_round: Scores) -> Scores:
    """Return how far each canary's rounds are from what noise alone would make of them.

    The squared Mahalanobis norm of a canary's scores, by the covariance of rounds that all canaries
    together show, in windows of rounds. Noise that is known from other rounds has next to no
    variance left, so whoever took part stands far out; in the rounds' sum that cannot be seen.

    Args:
        by_round: ``[rounds, canaries]``.

    Returns:
        ``[canaries]``. Which of them took part is not used.
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
    """Return how likely clients take part so often, or oftener, at a sampling rate.

    The lesser of the probabilities of their total and of the client's with the most, doubled.

    Args:
        times: In how many of the rounds each client took part, ``[population]``.
        rounds: Their number.
        rate: The probability of taking part in one.
    """
    total = float(stats.binom.sf(int(times.sum()) - 1, rounds * len(times), rate))
    most = len(times) * float(stats.binom.sf(int(times.max()) - 1, rounds, rate))
    return min(1.0, 2 * min(total, most))


def guess(scores: Scores, included: Included) -> tuple[int, int]:
    """Guess that the largest scores are of canaries that took part, the smallest of others.

    Returns:
        The number of guesses and of those that are right.
    """
    each = max(1, round(GUESSED_SHARE * len(scores)))
    order = np.argsort(scores, kind="stable")
    right = included[order[-each:]].sum() + (~included[order[:each]]).sum()
    return 2 * each, int(right)


def counting_bound(canaries: int, guesses: int, correct: int, delta: float, error: float) -> float:
    """Return the largest epsilon that this many correct guesses refute.

    Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run" (arXiv 2305.08846),
    theorem 5.2: with (epsilon, delta) and fair coins the number of correct guesses is dominated by
    a binomial with success probability ``e^eps / (1 + e^eps)``, but for a probability that delta
    accounts for.
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
    """Return the epsilon of telling two normal distributions apart, each estimated cautiously.

    The difference of the means is taken at its lower confidence bound (Welch's), the deviation at
    the upper bound of the larger one, each with half of the error probability. Epsilon is that of
    the Gaussian mechanism of this ratio.
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
