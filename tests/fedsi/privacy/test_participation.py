"""Exactly the participations that violate a plan are detected."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsi.plan import Plan
from fedsi.privacy.participation import none_yet, record
from server.cohorts.sampling import shuffled_cohort

Rounds = list[list[int]]


def first_violation(
    plan: Plan, population: int, cohorts: Iterable[tuple[int, NDArray[np.int64]]]
) -> str | None:
    """Return the sentence of ``record`` for the first round that breaks a plan, if any does."""
    past = none_yet(population)
    sentences = (record(past, plan, number, cohort) for number, cohort in cohorts)
    return next((sentence for sentence in sentences if sentence), None)


def plan(separation: int = 1, most: int | None = None, rounds: int = 20) -> Plan:
    return Plan("tree", "shuffled", 20, 1, rounds, 1.0, 1e-6, None, separation, participations=most)


def cohorts(rounds: Rounds) -> list[tuple[int, np.ndarray]]:
    return [(number, np.array(ids, np.int64)) for number, ids in enumerate(rounds, 1)]


def test_a_separation_of_three_has_two_rounds_between() -> None:
    three_apart = [[7], [], [], [7]]
    assert first_violation(plan(separation=3, most=9), 8, cohorts(three_apart)) is None
    two_apart = [[7], [], [7]]
    assert first_violation(plan(separation=3, most=9), 8, cohorts(two_apart)) == (
        "client 7 takes part in rounds 1 and 3, 2 rounds apart, but the accounting counts on at "
        "least 3"
    )


def test_the_number_of_participations() -> None:
    rounds = [[3], [3], [3]]
    assert first_violation(plan(most=3), 8, cohorts(rounds)) is None
    assert first_violation(plan(most=2), 8, cohorts(rounds)) == (
        "client 3 takes part 3 times in 3 rounds, but the accounting counts on at most 2"
    )


def test_an_allocated_pass_has_a_client_once() -> None:
    passes = Plan("gaussian", "allocated", 20, 5, 12, 1.0, 1e-6)  # of 4 rounds
    assert first_violation(passes, 8, cohorts([[3], [], [], [], [3]])) is None
    assert first_violation(passes, 8, cohorts([[], [], [], [3], [3]])) is None
    assert first_violation(passes, 8, cohorts([[], [3], [], [3]])) == (
        "client 3 takes part in rounds 2 and 4, but the accounting counts on one round in each "
        "pass of 4"
    )


def test_cyclic_groups_have_a_client_in_their_own_rounds_only() -> None:
    turns = Plan("banded", "cyclic", 20, 5, 12, 1.0, 1e-6, groups=3)
    assert first_violation(turns, 8, cohorts([[3], [], [], [3], [], [], [3]])) is None
    assert first_violation(turns, 8, cohorts([[3], [], [], [], [3]])) == (
        "client 3 takes part in rounds 1 and 5, but the accounting counts on distances of a "
        "multiple of 3 rounds"
    )


def test_participations_are_those_that_the_rounds_so_far_are_priced_by() -> None:
    """Passes of 10 rounds: 2 participations are allowed in 20 rounds, in the first 10 only one."""
    passes = Plan("tree", "shuffled", 10, 1, 20, 1.0, 1e-6)
    assert first_violation(passes, 10, cohorts([[3], *[[]] * 9, [3]])) is None
    assert first_violation(passes, 10, cohorts([[3], *[[]] * 8, [3]])) == (
        "client 3 takes part 2 times in 10 rounds, but the accounting counts on at most 1"
    )


def test_the_closest_participations_are_known() -> None:
    past = none_yet(8)
    for number, ids, closest in [(1, [1, 2], 0), (5, [1], 4), (7, [2], 4), (8, [1, 3], 3)]:
        assert record(past, plan(most=9), number, np.array(ids)) is None
        assert past.closest.tolist() == [closest]


def test_twice_in_a_cohort_is_wrong_for_every_sampling() -> None:
    poisson = Plan("gaussian", "poisson", 8, 2, 9, 1.0, 1e-6)
    often = [[1, 2], [1, 2], [1, 2]]
    assert first_violation(poisson, 8, cohorts(often)) is None
    assert first_violation(poisson, 8, cohorts([*often, [2, 5, 2]])) == (
        "client 2 is in the cohort of round 4 twice"
    )


def test_a_refused_cohort_is_not_recorded() -> None:
    past = none_yet(8)
    assert record(past, plan(separation=2, most=9), 1, np.array([1])) is None
    assert record(past, plan(separation=2, most=9), 2, np.array([1, 2])) is not None
    assert past.times.tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert past.last_round.tolist() == [0, 1, 0, 0, 0, 0, 0, 0]


@given(
    st.lists(st.lists(st.integers(0, 4), unique=True, max_size=3), max_size=12),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_against_all_pairs(rounds: Rounds, separation: int, most: int) -> None:
    taken = {client: [n for n, ids in enumerate(rounds, 1) if client in ids] for client in range(5)}
    holds = all(
        all(
            times <= plan(separation, most).participations_within(number)
            for times, number in enumerate(numbers, 1)
        )
        and all(y - x >= separation for x in numbers for y in numbers if x < y)
        for numbers in taken.values()
    )
    assert (first_violation(plan(separation, most), 5, cohorts(rounds)) is None) == holds


@pytest.mark.parametrize("separation", [1, 3, 5])
def test_the_sampler_keeps_the_plan(separation: int) -> None:
    kept = Plan("tree", "shuffled", 23, 4, 40, 1.0, 1e-6, min_separation=separation)
    drawn = [(n, shuffled_cohort(5, n, 23, 4, separation)) for n in range(1, 41)]
    assert first_violation(kept, 23, drawn) is None
    closer = [(n, shuffled_cohort(5, n, 23, 4, 1)) for n in range(1, 41)]
    if separation > 1:
        assert first_violation(kept, 23, closer) is not None
