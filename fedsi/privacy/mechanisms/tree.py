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

Released are only the estimates, from which the nodes cannot all be recovered. Let round t complete
a node of height h, and let ``s_j`` be the sum under the left child at height j on the way up from
t. Subtracting earlier releases from the estimate after round t leaves ``x_t + sum_(j<h) (1 - p_j)
s_j`` plus noise of variance ``p_0^2 + sum_(j<h) (p_(j+1) - p_j)^2``, where ``p_j = (2^(j+1) - 1) /
(2^(h+1) - 1)`` is the share of that node's own estimate in the estimate at t. The noise consists of
the fresh vectors of round t alone, so the rows are independent: divided by their standard
deviations they are the rows of C. Times ``2^(h+1) - 1``, a row has ``2^(h+1) - 1`` at round t and
``2^(h+1) - 2^(j+1)`` below the left child at height j, and the variance is ``(4^(h+1) - 1) / 3``. A
completed tree has no left child at some heights j, but independent noise there: variance ``2^j
(2^(j+1) - 1)`` more. All entries of C are non-negative.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.experiment import Experiment
from fedsi.plan import Plan
from fedsi.privacy.mechanisms.kind import APART, Accounting, Kind
from fedsi.privacy.mechanisms.mechanism import Fresh, NoiseState
from fedsi.privacy.mechanisms.tree_nodes import sensitivity_of_nodes
from fedsi.privacy.mechanisms.worst_pattern import LargestNorm, is_feasible, largest_norm


@dataclass(frozen=True)
class Tree:
    """Noise of a binary tree; see ``Mechanism``. The state is one vector per height."""

    plan: Plan

    @property
    def tree_rounds(self) -> int:
        """The number of rounds of one tree."""
        return self.plan.restart_every or self.plan.rounds

    @property
    def sensitivity(self) -> float:
        """The sensitivity of all rounds, exact or a proven bound of it; see ``slack``."""
        return self.sensitivity_after(self.plan.rounds)

    @property
    def slack(self) -> float | None:
        """Largest share by which ``sensitivity`` is above the exact one; None if not known."""
        largest = self._searched()
        return None if largest is None else self.sensitivity / largest.found - 1

    def sensitivity_after(self, rounds: int) -> float:
        """Return the sensitivity of the first rounds: that of their nodes, or of all rounds."""
        most, separation = self.plan.participations_within(rounds), self.plan.min_separation
        separation = min(separation, self.plan.rounds)
        nodes = sensitivity_of_nodes(rounds, self.plan.restart_every, most, separation)
        largest = self._searched()
        return nodes if largest is None else min(nodes, largest.bound)

    def _searched(self) -> LargestNorm | None:
        rounds, most = self.plan.rounds, self.plan.most_participations
        if not is_feasible(rounds, most):
            return None
        return _largest(rounds, self.plan.restart_every, most, self.plan.min_separation)

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
        return _leaf_and_top(round_number, self.plan.rounds, self.plan.restart_every)

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


def released_rows(rounds: int, restart_every: int | None) -> NDArray[np.float64]:
    """Return C, ``[rounds, rounds]``: independent rows, with unit noise, of what is released."""
    matrix = np.zeros((rounds, rounds))
    for number in range(rounds):
        leaf, top = _leaf_and_top(number + 1, rounds, restart_every)
        whole, first = 2.0 ** (top + 1), number - leaf
        variance = (whole**2 - 1) / 3
        matrix[number, number] = whole - 1
        for height in range(top):
            if leaf >> height & 1:
                left = first + (leaf >> (height + 1) << (height + 1))
                matrix[number, left : left + 2**height] = whole - 2.0 ** (height + 1)
            else:
                variance += 2.0**height * (2.0 ** (height + 1) - 1)
        matrix[number] /= math.sqrt(variance)
    return matrix


@lru_cache(maxsize=8)
def _largest(rounds: int, restart_every: int | None, most: int, separation: int) -> LargestNorm:
    matrix = released_rows(rounds, restart_every)
    return largest_norm(matrix.T @ matrix, most, separation)


def _leaf_and_top(round_number: int, rounds: int, restart_every: int | None) -> tuple[int, int]:
    """Return the round's leaf, from 0 in its tree, and the height of the node it completes."""
    leaf = (round_number - 1) % (restart_every or rounds)
    if restart_every is not None and leaf == restart_every - 1:
        return leaf, leaf.bit_length()
    return leaf, (leaf ^ (leaf + 1)).bit_length() - 1


def _weight(height: int) -> float:
    """Return the variance of a node's combined noise v."""
    return 2 - 2.0**-height


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
