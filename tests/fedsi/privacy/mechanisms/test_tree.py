import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi.privacy.mechanisms.table import build_mechanism
from fedsi.privacy.mechanisms.tree import Tree, released_rows
from fedsi.privacy.mechanisms.tree_nodes import sensitivity_of_nodes
from tests.fedsi.privacy.mechanisms.matrices import (
    Matrix,
    draws,
    plan,
    searched_sensitivity,
    streamed,
)


def all_nodes(rounds: int, restart_every: int | None) -> Matrix:
    """Return C: a row for every complete node, ones at the rounds below it."""
    rows = []
    of_tree = restart_every or rounds
    for first in range(0, rounds, of_tree):
        last = min(first + of_tree, rounds)
        completed = restart_every is not None and last == first + of_tree
        height = 0
        while 2**height < 2 * (last - first):
            for start in range(first, last, 2**height):
                if completed or start + 2**height <= last:
                    row = np.zeros(rounds)
                    row[start : min(start + 2**height, last)] = 1.0
                    rows.append(row)
            height += 1
    return np.array(rows)


class PrintedTree:
    """The tree as printed: a stack of (height, value) pairs."""

    def __init__(self) -> None:
        self.stack: list[tuple[int, Any]] = []

    def push(self, height: int, value: Any, fresh: Any) -> None:
        while self.stack and self.stack[-1][0] == height:
            value = fresh(height + 1) + (self.stack.pop()[1] + value) / 2
            height += 1
        self.stack.append((height, value))

    def estimate(self) -> Any:
        return sum(value / (2 - 2.0**-height) for height, value in self.stack)


@given(st.integers(1, 40))
def test_noise_is_the_change_of_the_printed_estimate(rounds: int) -> None:
    fresh = draws(0, 3)
    printed = PrintedTree()
    estimates = [np.zeros(3)]
    for t in range(1, rounds + 1):
        printed.push(0, fresh(t)(0), fresh(t))
        estimates.append(printed.estimate())
    noise = streamed(build_mechanism(plan("tree", rounds)), rounds, fresh, 3)
    np.testing.assert_allclose(noise, np.diff(estimates, axis=0), atol=1e-12)


def test_it_is_dp_ftrl_with_momentum() -> None:
    rounds, size, rate, beta = 21, 4, 0.3, 0.9
    fresh, sums = draws(1, size), np.random.default_rng(2).standard_normal((rounds, size))
    printed = PrintedTree()
    s = v = np.zeros(size)
    noise = streamed(build_mechanism(plan("tree", rounds)), rounds, fresh, size)
    theta, velocity = np.ones(size), np.zeros(size)
    for t in range(1, rounds + 1):
        printed.push(0, fresh(t)(0), fresh(t))
        s = s + sums[t - 1]
        v = beta * v + s + printed.estimate()
        velocity = beta * velocity + sums[t - 1] + noise[t - 1]
        theta = theta - rate * velocity
        np.testing.assert_allclose(theta, np.ones(size) - rate * v, atol=1e-12)


def unit_vectors(place: dict[tuple[int, int], int], t: int, width: int) -> Any:
    """Return unit vectors in place of a round's independent ones, all in new places."""
    return lambda k: np.eye(width)[place.setdefault((t, k), len(place))]


def unrolled(mechanism: Tree, rounds: int) -> Matrix:
    """Return the noise's coefficients: row t in terms of all independent vectors drawn."""
    place: dict[tuple[int, int], int] = {}
    width = 8 * rounds

    return streamed(mechanism, rounds, lambda t: unit_vectors(place, t, width), width)


@given(st.integers(1, 30), st.none() | st.integers(1, 12))
def test_row_norms(rounds: int, restart_every: int | None) -> None:
    mechanism = build_mechanism(plan("tree", rounds, restart_every=restart_every))
    assert isinstance(mechanism, Tree)
    norms = np.linalg.norm(unrolled(mechanism, rounds), axis=1)
    np.testing.assert_allclose(mechanism.row_norms(rounds), norms, rtol=1e-12)


@given(st.integers(1, 30), st.none() | st.integers(1, 12))
def test_prefix_noise_is_the_best_estimate_from_the_nodes_below(
    rounds: int, restart_every: int | None
) -> None:
    """Variances of prefix sums: finished trees have that of a root, others of their stack."""
    mechanism = build_mechanism(plan("tree", rounds, restart_every=restart_every))
    assert isinstance(mechanism, Tree)
    variances = np.sum(np.cumsum(unrolled(mechanism, rounds), axis=0) ** 2, axis=1)
    for t in range(1, rounds + 1):
        whole, rest = divmod(t, restart_every or rounds + 1)
        root = 1 / (2 - 2.0 ** -math.ceil(math.log2(restart_every or 1)))
        waiting = sum(1 / (2 - 2.0**-h) for h in range(rest.bit_length()) if rest >> h & 1)
        assert variances[t - 1] == pytest.approx(whole * root + waiting)


def test_completion_equals_rounds_of_zero_updates_in_distribution() -> None:
    """A tree of 5 rounds, completed to 8, has the moments of the printed tree after 8 leaves."""
    place: dict[tuple[int, int], int] = {}
    printed, estimates = PrintedTree(), [np.zeros(32)]
    for t in range(1, 9):
        fresh = unit_vectors(place, t, 32)
        printed.push(0, fresh(0), fresh)
        estimates.append(printed.estimate())
    expected = np.diff(np.array(estimates)[[0, 1, 2, 3, 4, 8]], axis=0)
    mechanism = build_mechanism(plan("tree", 5, restart_every=5))
    assert isinstance(mechanism, Tree)
    found = unrolled(mechanism, 5)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-12)


@given(st.integers(1, 30), st.none() | st.integers(1, 12))
def test_released_rows_have_independent_noise_of_deviation_1(
    rounds: int, restart_every: int | None
) -> None:
    """C^T C is the inverse of the covariance of the noise on the rounds' sums."""
    mechanism = build_mechanism(plan("tree", rounds, restart_every=restart_every))
    assert isinstance(mechanism, Tree)
    noise, matrix = unrolled(mechanism, rounds), released_rows(rounds, restart_every)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix @ noise @ noise.T @ matrix.T, np.eye(rounds), atol=1e-9)


@given(st.integers(1, 13), st.none() | st.integers(1, 9), st.integers(1, 5), st.integers(1, 6))
def test_sensitivity_is_that_of_all_patterns(
    rounds: int, restart_every: int | None, participations: int, separation: int
) -> None:
    given_plan = plan(
        "tree",
        rounds,
        restart_every=restart_every,
        min_separation=separation,
        participations=participations,
    )
    mechanism = build_mechanism(given_plan)
    most = given_plan.most_participations
    matrix = released_rows(rounds, restart_every)
    for number in range(1, rounds + 1):
        most = given_plan.participations_within(number)
        searched = searched_sensitivity(matrix[:number, :number], most, separation)
        assert mechanism.sensitivity_after(number) >= searched * (1 - 1e-12)
    assert mechanism.sensitivity == pytest.approx(searched, rel=1e-8)
    assert mechanism.slack == pytest.approx(0.0, abs=1e-8)


def sensitivity(rounds: int, restart_every: int | None, most: int, separation: int) -> Any:
    """Return the sensitivity, and how far it may be above the exact one."""
    changes = {"restart_every": restart_every, "participations": most}
    mechanism = build_mechanism(plan("tree", rounds, min_separation=separation, **changes))
    return mechanism.sensitivity, mechanism.slack


def test_sensitivities_below_those_of_the_nodes() -> None:
    """3.9 to 7.7 % below; exact for few participations or with restarts."""
    assert sensitivity(200, None, 4, 50) == pytest.approx((5.9309, 0.0), abs=1e-4)
    assert sensitivity_of_nodes(200, None, 4, 50) == pytest.approx(6.2450, abs=1e-4)
    assert sensitivity(300, 100, 6, 50) == pytest.approx((7.1516, 0.0), abs=1e-4)
    assert sensitivity_of_nodes(300, 100, 6, 50) == pytest.approx(7.7460, abs=1e-4)
    found, slack = sensitivity(500, None, 10, 50)
    assert found == pytest.approx(11.079, abs=1e-3)
    assert 0.01 < slack < 0.04
    # Too many rounds to search.
    assert sensitivity(16384, None, 2, 8000) == (sensitivity_of_nodes(16384, None, 2, 8000), None)


@given(st.integers(1, 14), st.none() | st.integers(1, 9), st.integers(1, 5), st.integers(1, 6))
def test_sensitivity_of_the_nodes_is_that_of_a_search(
    rounds: int, restart_every: int | None, participations: int, separation: int
) -> None:
    searched = searched_sensitivity(all_nodes(rounds, restart_every), participations, separation)
    found = sensitivity_of_nodes(rounds, restart_every, participations, separation)
    assert found == pytest.approx(searched, rel=1e-12)


def test_known_sensitivities_of_nodes() -> None:
    assert sensitivity_of_nodes(8, None, 1, 8) == 2.0  # a leaf and its three ancestors
    assert sensitivity_of_nodes(7, None, 1, 7) == math.sqrt(3)  # no root
    assert sensitivity_of_nodes(7, 7, 1, 7) == 2.0  # a restart completes the tree
    assert sensitivity_of_nodes(4, None, 2, 2) == math.sqrt(2 * 2 + 4)


def test_separation_counts_from_round_to_round() -> None:
    """With y - x >= 2 rounds 0, 2 and 4 are allowed; with two rounds between only 0 and 3."""
    matrix = all_nodes(5, None)
    ours = searched_sensitivity(matrix, 5, 2)
    other = searched_sensitivity(matrix, 5, 2 + 1)
    assert sensitivity_of_nodes(5, None, 5, 2) == pytest.approx(ours)
    assert other < ours


def test_large_runs_are_quick() -> None:
    assert sensitivity_of_nodes(2000, None, 40, 50) == pytest.approx(36.810, abs=1e-3)
    assert sensitivity_of_nodes(2000, 100, 40, 50) == 20.0
    assert sensitivity_of_nodes(2000, None, 200, 10) == pytest.approx(169.378, abs=1e-3)
    # Every round: the nodes of height h are full, 2^h participations each.
    nodes = [(1000 >> height, 4**height) for height in range(10)]
    every = math.sqrt(sum(count * square for count, square in nodes))
    assert sensitivity_of_nodes(1000, None, 1000, 1) == pytest.approx(every, rel=1e-12)


def test_the_state_is_one_vector_per_height() -> None:
    assert build_mechanism(plan("tree", 1000)).initial_state(3)["nodes"].shape == (10, 3)
    assert build_mechanism(plan("tree", 1000, restart_every=64)).initial_state(3)[
        "nodes"
    ].shape == (7, 3)
