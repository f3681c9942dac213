"""Empirical lower bounds on epsilon from canaries: an audit of the claimed epsilon.

A bound above the claimed epsilon refutes the claim at the stated confidence. A bound below it
proves nothing, because the attack may be weak.

The largest of several bounds is a valid one only if together they are wrong as rarely as one may
be. So each check has a share of the error probability, which is fixed here and does not depend on
any run (a union bound).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedsi.privacy.audit_bounds import (
    PrivacyCurve,
    Scores,
    counting_bound,
    curve_bound,
    gaussian_bound,
)

Included = NDArray[np.bool_]

CONFIDENCE = 0.95
GAUSSIAN, CURVE, COUNTING, ROUNDS = "means", "claimed curve", "guesses", "single rounds"
"""Names of the bounds."""
PARTICIPATIONS = "participations"
SHARES = {GAUSSIAN: 0.7, CURVE: 0.15, COUNTING: 0.05, ROUNDS: 0.05, PARTICIPATIONS: 0.05}
"""Shares of the error probability. The bound from means has most of it, because for Gaussian noise
it is by far the largest."""
ERRORS = {name: share * (1 - CONFIDENCE) for name, share in SHARES.items()}
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
    deviation_in: float
    """Standard deviation of the scores of the canaries that took part."""
    deviation_out: float
    guesses: int
    correct: int
    gaussian_epsilon: float
    """Lower bound from means and deviations; it assumes normally distributed scores."""
    curve_epsilon: float | None
    """Lower bound from the correct guesses and the claimed curve; it assumes nothing about the
    scores. None if there is no claim."""
    counting_epsilon: float
    """Lower bound from the correct guesses for the claimed delta alone."""
    rounds_correct: int
    """Correct guesses by ``canary_distances``, which look at each round, out of as many guesses."""
    rounds_epsilon: float
    """Lower bound from these guesses; like ``curve_epsilon``, or like ``counting_epsilon`` without
    a claim."""
    participations_likelihood: float
    """Probability of so many participations at the accounted sampling rate."""

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds by name."""
        found = {
            GAUSSIAN: self.gaussian_epsilon,
            CURVE: self.curve_epsilon,
            COUNTING: self.counting_epsilon,
            ROUNDS: self.rounds_epsilon,
        }
        return {name: bound for name, bound in found.items() if bound is not None}

    @property
    def bound_from(self) -> str:
        """The name of the largest bound."""
        return max(self.bounds, key=self.bounds.__getitem__)

    @property
    def bound(self) -> float:
        """The largest bound; each has its share of the error probability."""
        return self.bounds[self.bound_from]

    @property
    def participations_fit(self) -> bool:
        """Whether clients took part no more often than is accounted for."""
        return self.participations_likelihood >= ERRORS[PARTICIPATIONS]

    def refutes(self, claimed: float | None) -> bool:
        """Whether a bound exceeds the claimed epsilon, or clients took part too often.

        False if nothing is claimed (None).
        """
        return claimed is not None and (self.bound > claimed or not self.participations_fit)


def audit(
    scores: Scores,
    by_round: Scores,
    included: Included,
    delta: float,
    curve: PrivacyCurve | None = None,
    likelihood: float = 1.0,
) -> Audit:
    """Bound epsilon from below with confidence ``CONFIDENCE``.

    Args:
        scores: Score of each canary over the whole run, ``[canaries]``.
        by_round: Score of each canary in each release, ``[rounds, canaries]``; at least 4 canaries
            took part and at least 4 did not.
        included: Which canaries took part, ``[canaries]``.
        delta: The delta of the claim.
        curve: The claim, which ends with that delta; None if nothing is claimed.
        likelihood: The probability of the clients' participations.
    """
    count = len(scores)
    guesses, correct = guess(scores, included)
    _, rounds_correct = guess(canary_distances(by_round), included)

    def from_guesses(correct: int, curve: PrivacyCurve | None, error: float) -> float:
        if curve is None:
            return counting_bound(count, guesses, correct, delta, error)
        return curve_bound(count, guesses, correct, curve, error) * float(curve.epsilons[-1])

    inside, outside = scores[included], scores[~included]
    return Audit(
        canaries=count,
        included=len(inside),
        mean_in=float(inside.mean()),
        mean_out=float(outside.mean()),
        deviation_in=float(inside.std(ddof=1)),
        deviation_out=float(outside.std(ddof=1)),
        guesses=guesses,
        correct=correct,
        gaussian_epsilon=gaussian_bound(inside, outside, delta, ERRORS[GAUSSIAN]),
        curve_epsilon=from_guesses(correct, curve, ERRORS[CURVE]) if curve else None,
        counting_epsilon=from_guesses(correct, None, ERRORS[COUNTING]),
        rounds_correct=rounds_correct,
        rounds_epsilon=from_guesses(rounds_correct, curve, ERRORS[ROUNDS]),
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
