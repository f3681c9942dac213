"""Accounting of allocated cohorts: each client is in one randomly drawn round of every pass.

Let a pass have t rounds. For adding or removing one client, a pass is dominated by telling P from
Q, where Q is normal noise in t rounds, and P moves one of them, chosen uniformly, by the clip norm
(Feldman and Shenfeld, arXiv 2502.08202 and 2602.17284). The likelihood ratio ``dP/dQ = (r_1 + .. +
r_t) / t`` is the mean of the ratios of the rounds, which are independent under Q; under P one of
them follows the moved normal distribution.

The ratio of one round is rounded to a grid of equal steps by splitting its mass between the two
neighbours so that the mean is kept. That is a mean-preserving spread of the likelihood ratio, hence
a pair that dominates the exact one in both directions (Blackwell), and so are sums of such ratios,
which are convolutions on the grid, and compositions of passes. The result is an upper bound; its
error falls with the square of the step.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from dp_accounting.pld.pld_pmf import DensePLDPmf
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.stats import norm

from fedsi.errors import UserError
from fedsi.plan import Plan
from fedsi.privacy import zcdp
from fedsi.privacy.sampled_accounting import LEAST_DELTA

_STEP = 0.06
"""Step of the grid of one round's likelihood ratio, in its standard deviations under Q."""
_MOST_POINTS = 2**22
"""Most points of that grid; with little noise its step is wider, which loosens the bound."""
_LOSS_STEP = 0.01
"""Step of the grid of a pass's privacy loss, in its standard deviations."""
_LEAST_NOISE = 0.2
"""Noise multiplier below which nothing is gained over passes whose allocation is known."""
_TAIL = 1e-3
"""Share of delta that each of the tails cut off may have."""

Floats = NDArray[np.float64]


def allocated_epsilon(plan: Plan, rounds: int) -> float:
    """Return epsilon of the passes that the first rounds begin; an unfinished pass costs a whole.

    It is never more than the cost of passes whose allocation is known, in each of which the client
    takes part once.

    Raises:
        UserError: Delta is below ``sampled_accounting.LEAST_DELTA``.
    """
    if plan.delta < LEAST_DELTA:
        raise UserError(
            f"delta = {plan.delta} is below {LEAST_DELTA}, the least for which allocated cohorts "
            "can be accounted; choose a larger delta"
        )
    passes = plan.passes_within(rounds)
    known = zcdp.epsilon_of(passes / plan.noise_multiplier**2 / 2, plan.delta)
    if not gains_by_allocation(plan):
        return known
    losses, lost = allocated_losses(plan, passes)
    if lost >= plan.delta:
        return known
    return min(known, float(losses.get_epsilon_for_delta(plan.delta - lost)))


def gains_by_allocation(plan: Plan) -> bool:
    """Return whether a pass can cost less than one whose allocation is known."""
    return plan.rounds_per_pass > 1 and plan.noise_multiplier >= _LEAST_NOISE


def allocated_losses(plan: Plan, passes: int) -> tuple[PrivacyLossDistribution, float]:
    """Return the privacy losses of some passes, and a bound on the mass that rounding lost."""
    tail = _TAIL * plan.delta / plan.passes_within(plan.rounds)
    each, lost = _losses_of_a_pass(plan.noise_multiplier, plan.rounds_per_pass, tail)
    return each.self_compose(passes), passes * lost


@dataclass(frozen=True)
class _Round:
    """One round's likelihood ratio, on the grid ``least + step * [0, 1, ..]``."""

    least: float
    step: float
    under_q: Floats
    """Probabilities of the grid's points without the client, ``[points]``."""

    @property
    def under_p(self) -> Floats:
        """Their probabilities with the client, ``[points]``."""
        under_p: Floats = self.under_q * (self.least + self.step * np.arange(len(self.under_q)))
        return under_p


def _round_ratio(noise_multiplier: float, rounds: int, tail: float) -> _Round:
    """Return a round's likelihood ratio, rounded.

    The grid ends where a pass has about the mass ``tail`` beyond. The upper one, under P, and the
    lower one, under Q, are left out, which is accounted for as infinite loss.
    """
    moved = 1 / noise_multiplier

    def ratio(x: float) -> float:
        return math.exp(x * moved - moved**2 / 2)

    least, largest = ratio(-norm.isf(tail / rounds)), ratio(norm.isf(tail) + moved)
    deviation = math.sqrt(math.expm1(moved**2))
    # In the mean of few rounds the steps average out less.
    fine = _STEP * deviation * min(1.0, math.sqrt(rounds / 100))
    step = max(fine, (largest - least) / _MOST_POINTS)
    edges = least + step * np.arange(math.ceil((largest - least) / step) + 1)
    places = (np.log(edges) + moved**2 / 2) / moved
    inside_q, inside_p = _between(places), _between(places - moved)
    # A share up of an interval's mass goes to its upper edge, so that the mean is kept.
    up = np.clip((inside_p - edges[:-1] * inside_q) / step, 0, inside_q)
    under_q = np.zeros(len(edges))
    under_q[:-1] += inside_q - up
    under_q[1:] += up
    under_q[0] += norm.cdf(places[0] - moved) / least
    under_q[-1] += norm.sf(places[-1])
    return _Round(least, step, under_q)


def _between(places: Floats) -> Floats:
    """Return the probabilities of a standard normal between neighbours, exact in both tails."""
    below, above = norm.cdf(places), norm.sf(places)
    between: Floats = np.where(places[1:] > 0, above[:-1] - above[1:], below[1:] - below[:-1])
    return between


@lru_cache(maxsize=4)
def _losses_of_a_pass(
    noise_multiplier: float, rounds: int, tail: float
) -> tuple[PrivacyLossDistribution, float]:
    """Return the privacy losses of one pass, and a bound on the mass that rounding may have lost.

    Args:
        noise_multiplier: Noise of each round, in clip norms.
        rounds: Rounds of the pass, at least 2.
        tail: Probability that a round of the pass is beyond an end of the grid, for each end.
    """
    one = _round_ratio(noise_multiplier, rounds, tail)
    points, middle = len(one.under_q), rounds * (1 - one.least) / one.step
    values = one.least + one.step * np.arange(points)
    spread = math.sqrt(rounds * float(one.under_q @ (values - 1) ** 2)) / one.step
    # Sums beyond it would need two terms of more than half the grid besides the moved one.
    size = next_fast_len(2 * points + math.ceil(middle + 12 * spread), real=True)
    without = rfft(one.under_q, size)
    others = without ** (rounds - 1)
    under_p = np.maximum(irfft(rfft(one.under_p, size) * others, size), 0)
    under_q = np.maximum(irfft(without * others, size), 0)
    losses = np.log(one.least + one.step * np.arange(size) / rounds)
    step = _LOSS_STEP * spread * one.step / rounds
    distribution = PrivacyLossDistribution(
        on_grid(losses, under_p, step), on_grid(-losses[::-1], under_q[::-1], step)
    )
    # Measured, transforms misplace at most a tenth of this.
    return distribution, 2.0**-52 * math.sqrt(size)


def on_grid(losses: Floats, masses: Floats, step: float) -> DensePLDPmf:
    """Return losses on a grid of multiples of ``step``; mass missing from 1 is infinite loss.

    Masses are split between neighbours so that both the mass and its mean of ``exp(-loss)``, the
    mass under the other distribution, are kept.
    """
    below = np.floor(losses / step).astype(np.int64)
    up = np.expm1(below * step - losses) / math.expm1(-step)
    first = int(below[0])
    size = int(below[-1]) - first + 2
    probabilities = np.bincount(below - first, masses * (1 - up), size)
    probabilities += np.bincount(below - first + 1, masses * up, size)
    infinite = max(0.0, 1.0 - float(probabilities.sum()))
    return DensePLDPmf(step, first, probabilities, infinite, pessimistic_estimate=True)
