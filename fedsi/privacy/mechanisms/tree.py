"""Binary tree noise over the rounds (DP-FTRL, arXiv 2103.00039) with efficient estimates.

A node of height h sums 2^h rounds and is released with fresh noise. Its noise, combined with that
of the nodes below it, is ``v = fresh + (left + right) / 2``. Its sum is estimated with noise ``v /
(2 - 2^-h)``, whose variance is ``1 / (2 - 2^-h)`` (Honaker). The sum of rounds 1 to t is estimated
from the complete nodes that cover them, with noise N_t.

DP-FTRL with momentum is ``s += g; v = beta v + s + N_t; theta = theta_0 - eta v``. Here the sum of
round t gets the noise ``N_t - N_(t-1)`` and goes to any server optimizer. ``v`` is linear in the
sums, so SGD with momentum gives the same ``theta`` as DP-FTRL.

With restarts, a new tree begins after every ``restart_every`` rounds. The old tree is completed to
the next power of two with rounds of zero updates, so its sum has the noise of a root. Without
momentum this is DP-FTRL with restarts. Momentum continues through a restart here, but starts from
zero in DP-FTRL.

As a matrix, C has one row per released node, with ones at the rounds below it.
"""

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.experiment import Experiment
from fedsi.plan import Plan
from fedsi.privacy.mechanisms.kind import APART, Accounting, Kind
from fedsi.privacy.mechanisms.mechanism import Fresh, NoiseState


@dataclass(frozen=True)
class _Ways:
    """Undominated participation patterns over a span of rounds.

    They are sorted by participations, then by squared sensitivity.
    """

    participations: NDArray[np.int64]
    """Number of participations of each pattern, ``[ways]``, ascending."""
    squares: NDArray[np.int64]
    """Sum of squared participations over the nodes of the span, ``[ways]``; descending among
    patterns with equally many participations."""
    skips: NDArray[np.int64]
    """``[ways, separation + 1]``: entry ``w`` is the number of rounds to skip after the span if its
    first ``w`` rounds must be skipped; ``separation`` stands for "impossible"."""


@dataclass(frozen=True)
class Tree:
    """Noise of a binary tree; see ``Mechanism``. The state is one vector per height."""

    plan: Plan

    @property
    def tree_rounds(self) -> int:
        """The number of rounds of one tree."""
        return self.plan.restart_every or self.plan.rounds

    @property
    def completes(self) -> bool:
        """Whether a tree is completed after ``tree_rounds`` and a new one begun."""
        return self.plan.restart_every is not None

    @property
    def sensitivity(self) -> float:
        """The sensitivity of all rounds."""
        return self.sensitivity_after(self.plan.rounds)

    def sensitivity_after(self, rounds: int) -> float:
        """Return the sensitivity of the first rounds, whose nodes are a subset of all nodes."""
        most, separation = self.plan.participations_within(rounds), self.plan.min_separation
        separation = min(separation, self.plan.rounds)
        return sensitivity(rounds, self.plan.restart_every, most, separation)

    def initial_state(self, size: int) -> NoiseState:
        """Return zeros, ``[heights, size]``: at most one node of each height is pending."""
        return {"nodes": np.zeros((self.tree_rounds.bit_length(), size), np.float32)}

    def noise(self, state: NoiseState, round_number: int, fresh: Fresh) -> NDArray[Any]:
        """Return the change of the prefix sum's noise.

        Row h holds the pending node of height h, which exists if bit h of the number of finished
        rounds of the tree is set. The path climbs from the new leaf. A left neighbour is a pending
        node; a right neighbour covers only zero updates, so its noise is drawn as one vector.
        """
        nodes = state["nodes"]
        leaf, top = self._leaf_and_top(round_number)
        value, drawn = fresh(0), 1
        change = np.zeros_like(value)
        for height in range(top):
            if leaf >> height & 1:
                sibling = nodes[height]
                change -= sibling / _weight(height)
            else:
                sibling = fresh(drawn) * math.sqrt(_weight(height))
                drawn += 1
            value = fresh(drawn) + (value + sibling) / 2
            drawn += 1
        if top < len(nodes):
            nodes[top] = value
        return change + value / _weight(top)

    def row_norms(self, rounds: int) -> NDArray[np.float64]:
        """Return the row norms, from the variances of the independent parts of ``noise``."""
        return np.array([self._deviation(round_number) for round_number in range(1, rounds + 1)])

    def _leaf_and_top(self, round_number: int) -> tuple[int, int]:
        """Return the round's leaf, from 0 in its tree, and the height of the node it completes."""
        leaf = (round_number - 1) % self.tree_rounds
        if self.completes and leaf == self.tree_rounds - 1:
            return leaf, leaf.bit_length()
        return leaf, (leaf ^ (leaf + 1)).bit_length() - 1

    def _deviation(self, round_number: int) -> float:
        leaf, top = self._leaf_and_top(round_number)
        variance = 0.0
        for height in range(top + 1):
            share = 2.0 ** (height - top) / _weight(top)
            variance += share**2
            if height < top:
                waiting = leaf >> height & 1
                replaced = 1 / _weight(height) if waiting else 0.0
                variance += (share - replaced) ** 2 * _weight(height)
        return math.sqrt(variance)


def build(plan: Plan) -> Tree:
    """Return the tree, or the trees, over the plan's rounds."""
    return Tree(plan)


def sensitivity(
    rounds: int, restart_every: int | None, participations: int, separation: int
) -> float:
    """Return the exact largest norm of ``C x`` for one client's participations x.

    It is exact because it enumerates all participation patterns and drops only those that another
    one dominates for all later rounds. All entries of C are non-negative, so a client's worst
    updates all have the same direction.

    Args:
        rounds: Number of rounds of the run.
        restart_every: Rounds of a tree that is completed, or None for one tree.
        participations: Largest number of participations.
        separation: Smallest ``y - x`` for two participations in rounds x < y.
    """
    ways = _through(rounds, restart_every, participations, separation)
    return math.sqrt(int(ways.squares.max()))


@lru_cache(maxsize=64)
def _through(rounds: int, restart_every: int | None, most: int, separation: int) -> _Ways:
    """Return the patterns of the first rounds: those before the last complete node, then that node.

    Results for fewer rounds are thus reused. Several trees in a row count as one node.
    """
    if rounds == 0:
        return _Ways(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros((1, 1), np.int64))
    whole, rest = divmod(rounds, restart_every or rounds + 1)
    if rest:
        length = rest & -rest
        last = _full(length.bit_length() - 1, most, separation)
    else:
        trees = whole & -whole
        length = trees * (restart_every or 0)
        last = _trees(trees.bit_length() - 1, restart_every or 0, most, separation)
    return _in_turn(_through(rounds - length, restart_every, most, separation), last, most)


@lru_cache(maxsize=64)
def _full(height: int, most: int, separation: int) -> _Ways:
    """Return the patterns of the 2^height rounds under a node."""
    if height == 0:
        return _leaf(separation)
    half = _full(height - 1, most, separation)
    return _parent(half, half, most)


@lru_cache(maxsize=64)
def _trees(doublings: int, rounds: int, most: int, separation: int) -> _Ways:
    """Return the patterns of 2^doublings completed trees of ``rounds`` rounds each."""
    if doublings == 0:
        return _completed(rounds, most, separation)
    half = _trees(doublings - 1, rounds, most, separation)
    return _in_turn(half, half, most)


def _weight(height: int) -> float:
    """Return the variance of a node's combined noise v."""
    return 2 - 2.0**-height


def _leaf(separation: int) -> _Ways:
    skipped = np.maximum(np.arange(separation + 1) - 1, 0)
    skipped[separation] = separation
    taken = np.full(separation + 1, separation)
    taken[0] = separation - 1
    return _Ways(np.arange(2), np.arange(2), np.stack([skipped, taken]))


def _completed(rounds: int, most: int, separation: int) -> _Ways:
    """Return the patterns of ``rounds`` rounds under the root of a completed tree."""
    height = rounds.bit_length() - 1
    if rounds & (rounds - 1) == 0:
        return _full(height, most, separation)
    right = _completed(rounds - 2**height, most, separation)
    for _ in range(height - (rounds - 2**height - 1).bit_length()):
        right = _below(right)
    return _parent(_full(height, most, separation), right, most)


def _parent(left: _Ways, right: _Ways, most: int) -> _Ways:
    return _below(_in_turn(left, right, most))


def _below(ways: _Ways) -> _Ways:
    """Add the contribution of one more node above the rounds."""
    return replace(ways, squares=ways.squares + ways.participations**2)


def _in_turn(first: _Ways, second: _Ways, most: int) -> _Ways:
    """Return the patterns of two consecutive spans."""
    participations = first.participations[:, None] + second.participations
    of_first, of_second = np.nonzero(participations <= most)
    squares = first.squares[of_first] + second.squares[of_second]
    order = np.lexsort((-squares, participations[of_first, of_second]))
    of_first, of_second = of_first[order], of_second[order]
    found = _Ways(
        participations[of_first, of_second],
        squares[order],
        second.skips[of_second[:, None], first.skips[of_first]],
    )
    return _unbeaten(found, impossible=second.skips.shape[1] - 1)


def _unbeaten(ways: _Ways, impossible: int) -> _Ways:
    """Drop patterns that are impossible or dominated by others with as many participations."""
    best = np.empty_like(ways.skips)
    better = np.zeros(len(best), np.bool_)
    ends = np.flatnonzero(np.diff(ways.participations, append=-1)) + 1
    for start, end in itertools.pairwise([0, *ends.tolist()]):
        least = np.minimum.accumulate(ways.skips[start:end], axis=0, out=best[start:end])
        better[start] = np.any(least[0] < impossible)
        better[start + 1 : end] = np.any(least[1:] < least[:-1], axis=1)
    kept = np.flatnonzero(better)
    # Of patterns with the same squares the last one includes the skips of the others.
    known = np.stack([ways.participations[kept], ways.squares[kept]])
    kept = kept[np.append(np.any(np.diff(known, axis=1) != 0, axis=0), True)]
    return _Ways(ways.participations[kept], ways.squares[kept], best[kept])


def _vectors(experiment: Experiment) -> int:
    """Return the number of heights of a tree."""
    return (experiment.privacy.restart_every or experiment.server.rounds).bit_length()


KIND = Kind(
    build,
    samplings={"shuffled": Accounting.KEPT_APART},
    otherwise=APART,
    keys=frozenset({"restart_every"}),
    vectors=_vectors,
)
