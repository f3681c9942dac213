"""The largest effect of one client on all nodes of a tree, more than what is released.

As a matrix, C then has one row per node, with ones at the rounds below it.
"""

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


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


def sensitivity_of_nodes(
    rounds: int, restart_every: int | None, participations: int, separation: int
) -> float:
    """Return the exact largest norm of ``C x`` for one client's participations x in all nodes.

    It is an upper bound of the effect on what is released, and quick for any number of rounds. It
    is exact because it enumerates all participation patterns and drops only those that another one
    dominates for all later rounds. All entries of C are non-negative, so a client's worst updates
    all have the same direction.

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
