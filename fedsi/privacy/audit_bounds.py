"""Lower bounds on epsilon from one run: the statistical tests of an audit.

``counting_bound``: the null hypothesis is that the run is (epsilon, delta)-private. Its rejection
says that it is not, whatever its noise.

``curve_bound``: the null hypothesis is that the run keeps the whole curve of epsilon over delta
that it claims, with all epsilons multiplied by a number. Its rejection says that at some delta the
run costs more than this multiple of the claim, whatever its noise.

``gaussian_bound``: the null hypothesis is that scores of canaries are normal and the means of those
that took part and of the others at most mu deviations apart. Its rejection says that epsilon is
more than that of a Gaussian mechanism with this mu, if scores are normal.

Each test rejects a true null hypothesis with at most the probability ``error``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr

from fedsi.privacy.zcdp import epsilon_of

Scores = NDArray[np.float64]

LARGEST_EPSILON = 30.0
"""Largest epsilon that ``counting_bound`` can return."""
LARGEST_MULTIPLE = 1e3
"""Largest multiple of a claim that ``curve_bound`` tries."""
_QUANTILES = 1000
"""Quantiles over which the distribution of an estimated deviation is averaged."""


@dataclass(frozen=True)
class PrivacyCurve:
    """Pairs of epsilon and delta that a mechanism claims all at once."""

    epsilons: Scores
    """``[pairs]``"""
    deltas: Scores
    """``[pairs]``"""

    def least_probability(self, largest: float, multiple: float) -> float:
        """Return the least probability that an event must have beside one of a given probability.

        If each of two neighbouring populations gives the run an output in some event with
        probability x or more, and the other one with ``largest``, then ``largest <= e^epsilon x +
        delta`` and ``1 - x <= e^epsilon (1 - largest) + delta``, for all pairs of the curve.

        Args:
            largest: The probability of the event under one population.
            multiple: All epsilons of the curve are multiplied by it.
        """
        ratio = np.exp(np.minimum(multiple * self.epsilons, 700))
        from_above = ((largest - self.deltas) / ratio).max()
        from_below = (1 - self.deltas - (1 - largest) * ratio).max()
        return max(0.0, float(from_above), float(from_below))


def counting_bound(canaries: int, guesses: int, correct: int, delta: float, error: float) -> float:
    """Return the largest epsilon that this many correct guesses refute.

    Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run" (arXiv 2305.08846),
    theorem 5.2: with (epsilon, delta) and fair coins, the number of correct guesses is dominated by
    a binomial with success probability ``e^eps / (1 + e^eps)``, up to a probability that depends on
    delta.
    """
    return _largest_refuted(
        lambda epsilon: _tail(canaries, guesses, correct, epsilon, delta) <= error, LARGEST_EPSILON
    )


def _tail(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return the probability of at least this many correct guesses."""
    success = 1 / (1 + math.exp(-epsilon))
    exact = float(stats.binom.sf(correct - 1, guesses, success))
    fewer = np.arange(1, correct + 1)
    just_below = np.cumsum(stats.binom.pmf(correct - fewer, guesses, success))
    slack = float((just_below / fewer).max(initial=0.0))
    return exact + 2 * canaries * delta * slack


def curve_bound(
    canaries: int, guesses: int, correct: int, curve: PrivacyCurve, error: float
) -> float:
    """Return the largest multiple of a curve's epsilons that this many correct guesses refute.

    After Mahloujifar, Melis and Chaudhuri, "Auditing f-differential privacy in one run" (arXiv
    2410.22235). The whole curve is claimed, not one point of it, so more is refuted. Nothing is
    assumed about scores, noise or sampling, except that each canary's coin is fair and independent
    of the rest of the run.

    Proof sketch. There are m canaries, the number c of guesses is fixed, and ``p_i`` is the
    probability of exactly i correct ones. Flip the coin of one canary and keep the guesses: a
    correct guess on it becomes a wrong one, and no other guess changes. So for each j

        E: this canary is guessed correctly, and at least j guesses are correct,
        F: with the coin flipped, it is guessed wrongly, and at least j - 1 are correct,

    are the same outputs of the run for neighbouring populations. Hence ``P(E) <= g(P(F))``, where g
    is the concave function that the curve's pairs define. The average over canaries and coins gives
    ``sum_{i >= j} i p_i / m <= g(sum_{i >= j - 1} (c - i) p_i / m)``. If at least ``correct``
    guesses were correct with more than probability ``error``, these inequalities would require more
    and more probability of each smaller number. If they require more than 1 in total, that is
    impossible.

    Args:
        canaries: Number of canaries with coins, m.
        guesses: Number of guesses, c, fixed in advance; on other canaries nothing is guessed.
        correct: Number of correct guesses.
        curve: The claim.
        error: Probability of refuting a true claim.

    Returns:
        The multiple of the claimed epsilons; above 1 it refutes the claim. It is at most
        ``LARGEST_MULTIPLE``.
    """
    return _largest_refuted(
        lambda multiple: _is_impossible(canaries, guesses, correct, curve, multiple, error),
        LARGEST_MULTIPLE,
    )


def _is_impossible(
    canaries: int, guesses: int, correct: int, curve: PrivacyCurve, multiple: float, error: float
) -> bool:
    """Return whether the curve rules out this many correct guesses with probability ``error``."""
    right, wrong = error * correct / canaries, error * (guesses - correct) / canaries
    for number in range(correct - 1, -1, -1):
        missing = curve.least_probability(right, multiple) - wrong
        if missing > 0:
            wrong += missing
            right += missing * number / (guesses - number)
        if right + wrong > guesses / canaries:
            return True
    return False


def gaussian_bound(inside: Scores, outside: Scores, delta: float, error: float) -> float:
    """Return an epsilon that normally distributed scores refute.

    After the sums along canaries' directions of "Let's Ask Gauss" (arXiv 2606.12733), with an exact
    confidence bound instead of separate ones for means and deviations.

    Null hypothesis: scores of canaries that took part are normal with mean m and deviation s, those
    of the others with mean 0 and deviation r, and ``m / max(s, r) <= mu``.

    The mean of the others need not be estimated: their directions were drawn at random and are
    independent of everything that was released, so a score and its negative are equally likely.
    The deviations are estimated, and nothing is assumed about the noise.

    Proof sketch. Let d = max(s, r). If s = d, the probability of a score above a threshold t >= 0
    is at least as large for a canary that took part, and at most as large for another one, as it
    would be if both deviations were d; if r = d, the same holds for scores below m - t, with the
    two exchanged. These events give the epsilon of a Gaussian mechanism with ``mu = m / d``, so the
    run's epsilon is no smaller. With n canaries that took part and no other deviation than s, mean
    / (estimated deviation / sqrt(n)) has a noncentral t distribution with noncentrality ``mu
    sqrt(n)`` at most. Taking the larger of both estimates only makes it smaller.

    Args:
        inside: Scores of canaries that took part, at least 2.
        outside: Scores of the others, at least 2.
        delta: The delta that epsilon is for.
        error: Probability that the bound is too large.
    """
    freedom = min(len(inside), len(outside)) - 1
    deviation = max(float(inside.std(ddof=1)), float(outside.std(ddof=1)), 1e-12)
    seen = float(inside.mean()) / deviation * math.sqrt(len(inside))
    # Estimated over true deviation, at equally likely quantiles.
    shares = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    ratios = np.sqrt(stats.chi2.ppf(shares, freedom) / freedom)
    moved = _largest_refuted(
        lambda shift: float(ndtr(shift - seen * ratios).mean()) <= error, max(0.0, 2 * seen) + 1
    )
    mu = moved / math.sqrt(len(inside))
    return epsilon_of(mu**2 / 2, delta)


def _largest_refuted(refuted: Callable[[float], bool], largest: float) -> float:
    """Return the largest refuted strength up to a largest one, or 0 if 0 is not refuted."""
    if not refuted(0.0):
        return 0.0
    if refuted(largest):
        return largest
    low, high = 0.0, largest
    while high - low > 1e-7 * (1 + low):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
