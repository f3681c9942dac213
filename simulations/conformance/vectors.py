"""Known answers, each from a source that is independent of the code under test."""

import math
from dataclasses import asdict
from functools import lru_cache
from itertools import combinations, pairwise
from typing import Any

import dp_accounting
import numpy as np
from dp_accounting.pld import PLDAccountant
from scipy import optimize
from scipy.stats import norm

from simulations.conformance.adapter import Floats, Releases

UPDATES = [[3.0, 4.0], [0.3, -0.4], [0.0, 0.2], [-6.0, 8.0]]
"""Two updates of more than norm 1, and two of less."""
CLIPPED = [[0.6, 0.8], [0.3, -0.4], [0.0, 0.2], [-0.6, 0.8]]
"""The same, clipped to norm 1 with pencil and paper."""

TREE_ROUNDS = 8
PATTERN_ROUNDS = 8


def one_sampled_release(rate: float, noise_multiplier: float, delta: float) -> float:
    """Return epsilon of one Poisson-sampled Gaussian release, in closed form.

    With P = (1 - q) N(0, z^2) + q N(1, z^2) and Q = N(0, z^2), delta is the larger of the two
    hockey stick divergences, whose sets are half lines because P/Q is monotone.
    """

    def worst(epsilon: float) -> float:
        def crossing(loss: float) -> float:
            return noise_multiplier**2 * math.log((math.expm1(loss) + rate) / rate) + 0.5

        def under_p(place: float) -> float:
            at = norm.sf(np.array([place, place - 1]) / noise_multiplier)
            return float((1 - rate) * at[0] + rate * at[1])

        place = crossing(epsilon)
        found = under_p(place) - math.exp(epsilon) * float(norm.sf(place / noise_multiplier))
        if math.expm1(-epsilon) + rate > 0:
            place = crossing(-epsilon)
            below = float(norm.cdf(place / noise_multiplier))
            found = max(found, below - math.exp(epsilon) * (1 - under_p(place)))
        return found

    return float(optimize.brentq(lambda epsilon: worst(epsilon) - delta, 0, 50, xtol=1e-12))


def gaussian_releases(noise_multiplier: float, rounds: int, delta: float) -> float:
    """Return epsilon of Gaussian releases of every client (arXiv 1805.06530, theorem 8)."""
    mu = math.sqrt(rounds) / noise_multiplier

    def excess(epsilon: float) -> float:
        first = float(norm.cdf(mu / 2 - epsilon / mu))
        return first - math.exp(epsilon) * float(norm.cdf(-mu / 2 - epsilon / mu)) - delta

    return float(optimize.brentq(excess, 0, 200, xtol=1e-10))


@lru_cache
def many_sampled_releases(asked: Releases) -> float:
    """Return epsilon by the privacy loss distributions of dp-accounting."""
    accountant = PLDAccountant()
    gaussian = dp_accounting.GaussianDpEvent(asked.noise_multiplier)
    event = dp_accounting.PoissonSampledDpEvent(asked.sampling_rate, gaussian)
    accountant.compose(event, asked.rounds)
    return float(accountant.get_epsilon(asked.delta))


def accounting() -> list[tuple[Releases, float, str]]:
    """Return releases, their epsilon, and its source."""
    closed = "closed form: arXiv 1805.06530, theorem 8"
    one, many = Releases(0.1, 1.0, 1, 1e-5), Releases(0.01, 1.0, 1000, 1e-6)
    everyone = Releases(1.0, 20.0, 100, 1e-6)
    return [
        (everyone, gaussian_releases(20.0, 100, 1e-6), closed),
        (one, one_sampled_release(0.1, 1.0, 1e-5), "closed form of two hockey stick divergences"),
        (many, many_sampled_releases(many), "dp-accounting, privacy loss distributions"),
    ]


def tree_covariance(rounds: int = TREE_ROUNDS) -> Floats:
    """Return the covariance of the rounds' noise by least squares, ``[rounds, rounds]``.

    The efficient estimate (Honaker) of a complete subtree's sum is the best linear unbiased one
    from all of its nodes, ``A (A^T A)^-1 1``. The sum of rounds 1 to t adds those of the largest
    complete subtrees that cover them. ``rounds`` is a power of two.
    """
    nodes = [(first, 2**h) for h in range(rounds.bit_length()) for first in range(0, rounds, 2**h)]
    nodes = [(first, width) for first, width in nodes if first % width == 0]
    prefixes = np.zeros((rounds, len(nodes)))
    for t in range(1, rounds + 1):
        first = 0
        for width in (2**h for h in reversed(range(rounds.bit_length())) if t & 2**h):
            inner = [k for k, (a, w) in enumerate(nodes) if first <= a and a + w <= first + width]
            a = np.zeros((len(inner), width))
            for row, k in enumerate(inner):
                a[row, nodes[k][0] - first : nodes[k][0] - first + nodes[k][1]] = 1
            prefixes[t - 1, inner] = a @ np.linalg.solve(a.T @ a, np.ones(width))
            first += width
    each = np.diff(prefixes, axis=0, prepend=np.zeros((1, len(nodes))))
    return np.asarray(each @ each.T, np.float64)


def root_coefficients(rounds: int) -> list[float]:
    """Return the first column of the square root of prefix sums, ``binom(2k, k) / 4^k``."""
    return [math.comb(2 * k, k) / 4**k for k in range(rounds)]


def participations(separation: int, most: int, rounds: int = PATTERN_ROUNDS) -> dict[str, Any]:
    """Return all patterns of participations, and the worst sensitivity, by trying each."""
    found = [
        pattern
        for number in range(1, most + 1)
        for pattern in combinations(range(1, rounds + 1), number)
        if all(b - a >= separation for a, b in pairwise(pattern))
    ]
    column = root_coefficients(rounds)
    matrix = np.array(
        [[column[i - j] if i >= j else 0.0 for j in range(rounds)] for i in range(rounds)]
    )
    norms = {p: float(np.linalg.norm(matrix[:, np.array(p) - 1].sum(1))) for p in found}
    worst = max(norms, key=norms.__getitem__)
    return {
        "rounds": rounds, "min_separation": separation, "most": most, "patterns": len(found),
        "worst": list(worst), "sensitivity_of_square_root": norms[worst],
    }  # fmt: skip


def known_answers() -> dict[str, Any]:
    """Return all known answers with their sources, as JSON can hold them."""
    return {
        "accounting": [
            {**asdict(asked), "epsilon": value, "source": source}
            for asked, value, source in accounting()
        ],
        "clipped_sums": [
            {"updates": UPDATES, "clip_norm": 1.0, "clipped": CLIPPED,
             "sum": np.sum(CLIPPED, axis=0).tolist(), "source": "by hand: 3-4-5 triangles"}
        ],
        "noise_covariances": [
            {"mechanism": "tree, efficient estimates", "rounds": TREE_ROUNDS,
             "covariance": tree_covariance().tolist(),
             "source": "least squares over the nodes of each complete subtree"}
        ],
        "participation_patterns": [
            {**participations(separation, most), "source": "all patterns tried; binom(2k, k) / 4^k"}
            for separation, most in ((1, 8), (3, 3), (4, 2))
        ],
    }  # fmt: skip
