"""The largest effect of one client over its patterns of participation, found or bounded.

``G = C^T C`` is a Gram matrix without negative entries. A client that takes part in the rounds U,
with updates of norm 1, moves ``C X`` by at most the root of the sum of G_ij over i and j in U. The
search over U is branch and bound, the last participation first: of the patterns that end with some
chosen participations it knows a bound, it continues with those of the largest bound, and it ends
when no bound is above the best pattern found. If that takes too long, the largest bound left is the
result.

The bound: let R be the c earliest rounds of a pattern, in order, and i the m-th of them. With
``p_i`` the sum of G_ij over the m - 1 rounds before i and ``f_i`` that over the c - m rounds after
it, the sum of G over R is that of ``G_ii + p_i + f_i``, and also that of ``G_ii + 2 p_i``. Each p_i
and f_i is at most its largest value over all patterns that have i, so both sums are at most those
of a choice of rounds with weights that only depend on i and m; a recursion over rounds maximises
these exactly.
"""

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_STEPS = 1000
"""Patterns that are continued before the search gives up."""
MOST_WORK = 2e8
"""Largest rounds^2 * participations that is searched: about a second, and 40 MB."""
_BLOCK = 128
"""Rows of G that are maximised together."""
_ROUNDING = 1 + 1e-9
"""Bounds are not compared more finely; the result is rounded up by as much."""


@dataclass(frozen=True)
class LargestNorm:
    """The largest norm of ``C X`` for one client."""

    found: float
    """That of the worst pattern found."""
    bound: float
    """Proven upper bound; ``found`` if the search finished."""


def is_feasible(rounds: int, most: int) -> bool:
    """Whether ``largest_norm`` is quick enough for as many rounds and participations."""
    return rounds**2 * most <= MOST_WORK


def largest_norm(gram: Floats, most: int, separation: int) -> LargestNorm:
    """Search the worst participations of a client.

    Args:
        gram: G, ``[rounds, rounds]``, without negative entries.
        most: Largest number of participations.
        separation: Smallest ``y - x`` for two participations in rounds x < y.
    """
    most = min(most, math.ceil(len(gram) / separation))
    before = _largest_before(gram, most, separation)
    after = _largest_before(gram[::-1, ::-1], most, separation)[:, ::-1]
    ways = [_Search(gram, most, separation, before, other) for other in (after, None)]
    search = min(ways, key=lambda way: float(way.bounds(()).max()))
    best = max(_ascent(gram, start, most, separation) for start in (gram.sum(0), gram.diagonal()))
    found, bound = search.run(best)
    return LargestNorm(math.sqrt(found), math.sqrt(bound))


@dataclass(frozen=True)
class _Search:
    """Branch and bound over participations, the last one first."""

    gram: Floats
    most: int
    separation: int
    before: Floats
    """Largest p of at most c participations, entry ``(c, i)``, ``[most, rounds]``."""
    after: Floats | None
    """The same of f; None for the bound by p alone."""

    def bounds(self, chosen: tuple[int, ...]) -> Floats:
        """Return bounds of the patterns that end with some participations, by the one before them.

        Args:
            chosen: The last participations, latest first, fewer than ``most``.

        Returns:
            An upper bound of the sum of G over a pattern, ``[rounds before the chosen ones]``.
        """
        left = self.most - len(chosen)
        alone = self._alone(chosen)
        before = self.before[:left, : len(alone)]
        after = before if self.after is None else self.after[:left, : len(alone)][::-1]
        totals = np.zeros(0)
        for weights in alone + before + after:
            totals = _with_earlier(weights, totals, self.separation)
        return totals + self._total(chosen)

    def _alone(self, chosen: tuple[int, ...]) -> Floats:
        """Return what each earlier round would add to the sum of G over the chosen ones."""
        end = chosen[-1] - self.separation + 1 if chosen else len(self.gram)
        end = max(end, 0)
        added: Floats = self.gram.diagonal()[:end] + 2 * self.gram[list(chosen), :end].sum(0)
        return added

    def _total(self, chosen: tuple[int, ...]) -> float:
        return float(self.gram[np.ix_(chosen, chosen)].sum())

    def run(self, best: float) -> tuple[float, float]:
        """Return the largest sum of G over a pattern that was found, and a bound of all.

        Args:
            best: The sum of some pattern.
        """
        waiting: list[tuple[float, tuple[int, ...]]] = [(-math.inf, ())]
        for _ in range(MOST_STEPS):
            if not waiting or -waiting[0][0] <= best * _ROUNDING:
                return best, best * _ROUNDING
            _, chosen = heapq.heappop(waiting)
            bounds = self.bounds(chosen)
            totals = self._total(chosen) + self._alone(chosen)
            best = max(best, float(totals.max(initial=0.0)))
            if len(chosen) + 1 < self.most:
                for last in np.flatnonzero(bounds > best * _ROUNDING).tolist():
                    heapq.heappush(waiting, (-float(bounds[last]), (*chosen, last)))
        return best, max(best * _ROUNDING, -waiting[0][0] if waiting else 0.0)


def _largest_before(gram: Floats, most: int, separation: int) -> Floats:
    """Return the largest sums of a row of G over at most c earlier participations.

    Returns:
        Entry ``(c, i)`` is that of G_ij over j of a pattern of c participations, the last of which
        is at least a separation before i, ``[most, rounds]``.
    """
    rounds = len(gram)
    largest = np.zeros((most, rounds))
    for start in range(0, rounds, _BLOCK):
        block = gram[start : start + _BLOCK, : start + _BLOCK]
        rows = np.arange(len(block))
        until = start + rows - separation
        totals = np.zeros((len(block), 0))
        for count in range(1, most):
            totals = np.maximum.accumulate(_with_earlier(block, totals, separation), axis=-1)
            largest[count, start + rows] = np.where(until < 0, 0.0, totals[rows, until.clip(0)])
    return largest


def _with_earlier(weights: Floats, totals: Floats, separation: int) -> Floats:
    """Add to the weight of each round the largest total of the rounds a separation before it."""
    found = weights.copy()
    if totals.shape[-1]:
        best = np.maximum.accumulate(totals, axis=-1)
        found[..., separation:] += best[..., : max(found.shape[-1] - separation, 0)]
    return found


def _ascent(gram: Floats, weights: Floats, most: int, separation: int) -> float:
    """Return the sum of G over a pattern that no other is better than by the sums of its rows.

    The pattern of the largest total of some weights gives the next weights, its sums of columns of
    G. The sum of G is convex, so it never falls.
    """
    best = 0.0
    while True:
        chosen = _largest_total(weights, most, separation)
        total = float(gram[np.ix_(chosen, chosen)].sum())
        if total <= best * _ROUNDING:
            return best
        best, weights = total, gram[:, chosen].sum(1)


def _largest_total(weights: Floats, most: int, separation: int) -> list[int]:
    """Return the participations with the largest total of non-negative weights."""
    stages = [weights]
    for _ in range(1, most):
        stages.append(_with_earlier(weights, stages[-1], separation))
    chosen: list[int] = []
    end = len(weights)
    while stages and end > 0:
        chosen.append(int(stages.pop()[:end].argmax()))
        end = chosen[-1] - separation + 1
    return chosen
