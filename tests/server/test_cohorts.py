import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi import UserError
from server.cohorts import check_cohort_size, uniform_cohort


@given(st.integers(0, 99), st.integers(1, 99), st.integers(1, 300), st.data())
def test_cohorts_are_distinct_clients_and_repeatable(
    seed: int, number: int, population: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, population))
    cohort = uniform_cohort(seed, number, population, size)
    assert len(set(cohort.tolist())) == size
    assert cohort.min() >= 0
    assert cohort.max() < population
    assert np.array_equal(cohort, uniform_cohort(seed, number, population, size))


def test_every_client_is_as_likely_in_every_place() -> None:
    rounds, population, size = 20_000, 8, 3
    counts = np.zeros((size, population))
    for number in range(rounds):
        counts[np.arange(size), uniform_cohort(0, number, population, size)] += 1
    expected = rounds / population
    sigma = np.sqrt(expected * (1 - 1 / population))
    assert np.abs(counts - expected).max() < 4.5 * sigma
    # The same bound catches a sampler that is off by a twentieth.
    assert 0.05 * expected > 2 * sigma


def test_pairs_occur_together_as_often_as_they_should() -> None:
    rounds, population, size = 20_000, 6, 2
    together = np.zeros((population, population))
    for number in range(rounds):
        a, b = sorted(uniform_cohort(1, number, population, size).tolist())
        together[a, b] += 1
    counts = together[np.triu_indices(population, 1)]
    expected = rounds / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < 40  # 14 degrees of freedom


def test_a_large_population_costs_nothing() -> None:
    assert len(set(uniform_cohort(0, 1, 10**12, 1000).tolist())) == 1000


def test_a_cohort_larger_than_the_population_is_refused() -> None:
    check_cohort_size(5, 5)
    with pytest.raises(UserError, match=r"server\.cohort_size = 6 is more than the 5 training"):
        check_cohort_size(6, 5)
