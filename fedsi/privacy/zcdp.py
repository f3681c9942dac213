"""Zero-concentrated differential privacy of one Gaussian mechanism, and its (epsilon, delta).

A Gaussian mechanism whose output moves by ``mu`` standard deviations satisfies rho-zCDP with ``rho
= mu^2 / 2`` (arXiv 1605.02065). Its exact (epsilon, delta) curve is (Balle and Wang, arXiv
1805.06530, theorem 8) ``delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)``. It
holds for whichever adjacency ``mu`` was computed for.
"""

import math
from collections.abc import Callable

from scipy import optimize, special


def log_delta_of(rho: float, epsilon: float) -> float:
    """Return the logarithm of the smallest delta; minus infinity if it underflows.

    Args:
        rho: rho of zCDP, positive and finite.
        epsilon: Not negative.
    """
    mu = math.sqrt(2 * rho)
    log_kept = float(special.log_ndtr(mu / 2 - epsilon / mu))
    log_ratio = epsilon + float(special.log_ndtr(-mu / 2 - epsilon / mu)) - log_kept
    return log_kept + math.log(-math.expm1(log_ratio)) if log_ratio < 0 else -math.inf


def epsilon_of(rho: float, delta: float) -> float:
    """Return the smallest epsilon, or 0 if delta is reached even there.

    Args:
        rho: rho of zCDP, not negative.
        delta: Between 0 and 1, both excluded.
    """
    if rho == 0 or math.isinf(rho):
        return rho
    log_delta = math.log(delta)
    if log_delta_of(rho, 0.0) <= log_delta:
        return 0.0
    # This bound holds for any rho-zCDP mechanism, so it is never below the exact value.
    bound = rho + 2 * math.sqrt(-rho * log_delta)
    return _root(lambda epsilon: log_delta - log_delta_of(rho, epsilon), 0.0, bound)


def rho_of(epsilon: float, delta: float) -> float:
    """Return the largest rho that costs at most epsilon at delta; the inverse of ``epsilon_of``.

    Args:
        epsilon: Positive and finite.
        delta: Between 0 and 1, both excluded.
    """
    log_delta = math.log(delta)
    # From the bound above, solved for mu, to a mu whose outputs are certainly distinguishable.
    tail = math.sqrt(-2 * log_delta)
    least = 2 * epsilon / (tail + math.sqrt(tail**2 + 2 * epsilon))
    most = math.sqrt(2 * epsilon) + 20
    log_mu = _root(
        lambda log_mu: log_delta_of(math.exp(2 * log_mu) / 2, epsilon) - log_delta,
        math.log(least),
        math.log(most),
    )
    return math.exp(2 * log_mu) / 2


def _root(increasing: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function crosses zero. Bisection needs only signs; values may be infinite."""
    return float(optimize.bisect(increasing, low, high, xtol=1e-15))
