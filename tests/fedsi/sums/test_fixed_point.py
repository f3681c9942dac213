import math
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsi.limits import FRACTION_BITS, largest_contribution
from fedsi.sums.fixed_point import decode
from fedsi.sums.updates import CACHED
from fedsi.sums.updates import add_update as add_spans


def add_update(
    start: "Floats", trained: "Floats", weight: np.float32, limit: np.float32, sums: NDArray[Any]
) -> bool:
    whole = np.array([[0, len(start)]])
    return add_spans(start, trained, whole, weight, limit, sums)


Floats = NDArray[np.float32]
numbers = st.floats(-1e4, 1e4, width=32)
ONE, LIMIT = np.float32(1), np.float32(1e5)


def encode(update: Floats, weight: float) -> list[int]:
    """The slow reference: exact fractions, rounded half to even."""
    weighted = update * np.float32(weight)
    return [round(Fraction(float(value)) * 2**FRACTION_BITS) for value in weighted]


@given(
    st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40),
    st.sampled_from([1.0, 3.0, 17.0]),
    st.integers(-(2**40), 2**40),
)
def test_what_is_added_is_the_nearest_multiple(
    pairs: list[tuple[float, float]], weight: float, before: int
) -> None:
    start, trained = np.array(pairs, dtype=np.float32).T.copy()
    sums = np.full(len(start), before, dtype=np.int64)
    assert add_update(start, trained, np.float32(weight), np.float32(1e9), sums)
    assert (sums - before).tolist() == encode(trained - start, weight)


@given(st.lists(numbers, min_size=1, max_size=30))
def test_one_value_is_kept_to_the_resolution(values: list[float]) -> None:
    trained = np.array(values, dtype=np.float32)
    sums = np.zeros(len(values), dtype=np.int64)
    add_update(np.zeros_like(trained), trained, ONE, LIMIT, sums)
    error = np.abs(decode(sums) - trained.astype(np.float64)).max()
    assert error <= 2.0 ** -(FRACTION_BITS + 1)


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=2, max_size=9), st.randoms())
def test_sums_do_not_depend_on_order(updates: list[list[float]], shuffler: random.Random) -> None:
    def total(rows: list[list[float]]) -> list[int]:
        sums = np.zeros(3, dtype=np.int64)
        for row in rows:
            add_update(np.zeros(3, np.float32), np.array(row, np.float32), ONE, LIMIT, sums)
        return sums.tolist()

    shuffled = list(updates)
    shuffler.shuffle(shuffled)
    assert total(shuffled) == total(updates)


@given(st.integers(1, 10**6))
def test_a_cohort_at_the_limit_does_not_overflow(cohort: int) -> None:
    limit = np.float32(largest_contribution(cohort))
    sums = np.zeros(1, dtype=np.int64)
    assert add_update(np.zeros(1, np.float32), np.array([limit]), ONE, limit, sums)
    assert 0 < int(sums[0]) * cohort < 2**63


@pytest.mark.parametrize("place", [0, CACHED - 1, CACHED, 3 * CACHED + 16])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.1e5, -1.1e5])
def test_a_refused_update_leaves_the_sums_as_they_were(place: int, bad: float) -> None:
    rng = np.random.default_rng(place)
    start, trained = rng.normal(size=(2, 3 * CACHED + 17)).astype(np.float32)
    trained[place] = bad
    sums = rng.integers(-(2**60), 2**60, len(start))
    expected = sums.copy()
    assert not add_update(start, trained, ONE, LIMIT, sums)
    assert np.array_equal(sums, expected)
    trained[place] = 0.0
    assert add_update(start, trained, ONE, LIMIT, sums)
    assert not np.array_equal(sums, expected)


@pytest.mark.parametrize("bad", [None, 3, 60, CACHED + 90])
def test_only_spans_are_added_or_taken_back(bad: int | None) -> None:
    spans = np.array([[2, 5], [50, 2 * CACHED]])
    rng = np.random.default_rng(0)
    start, trained = rng.normal(size=(2, 2 * CACHED + 9)).astype(np.float32)
    sums = np.zeros(len(start), dtype=np.int64)
    expected = sums.copy()
    if bad is None:
        for a, b in spans:
            add_update(start[a:b], trained[a:b], ONE, LIMIT, expected[a:b])
    else:
        trained[bad] = math.nan
    assert add_spans(start, trained, spans, ONE, LIMIT, sums) is (bad is None)
    assert np.array_equal(sums, expected)
