import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi import Experiment
from server.cohorts.reporting import clients_to_draw, log_durations, reporting
from server.cohorts.sampling import draw_cohort

POPULATION = 1000
EVERYONE = np.random.default_rng(0).permutation(POPULATION)


def experiment(cohort_size: int = 20, seed: int = 0, **devices: Any) -> Experiment:
    return Experiment(seed=seed, server={"cohort_size": cohort_size}, devices=devices)


def test_a_reliable_cohort_reports_as_it_was_drawn() -> None:
    assert np.array_equal(reporting(experiment(), POPULATION, EVERYONE, 1, 0), EVERYONE)


@pytest.mark.parametrize(
    ("size", "factor", "drawn"),
    [(10, 1.0, 10), (10, 1.1, 11), (10, 1.3, 13), (3, 1.5, 5), (7, 1.01, 8), (100, 1.15, 115)],
)
def test_as_many_are_drawn_as_asked_for(size: int, factor: float, drawn: int) -> None:
    assert clients_to_draw(experiment(size, over_selection=factor)) == drawn


@given(st.integers(0, 9), st.integers(1, 50), st.integers(1, 40), st.floats(0, 2))
def test_over_selection_keeps_the_fastest_in_the_order_drawn(
    seed: int, number: int, size: int, sigma: float
) -> None:
    settings = experiment(size, seed, over_selection=2.0, speed_sigma=sigma, dropout=0.2)
    everybody = experiment(size, seed, speed_sigma=sigma, dropout=0.2)
    asked = np.random.default_rng(number).permutation(POPULATION)[: 2 * size]
    kept = reporting(settings, POPULATION, asked, number, seed).tolist()
    there = reporting(everybody, POPULATION, asked, number, seed).tolist()
    durations = dict(
        zip(
            there, log_durations(settings, POPULATION, np.array(there, np.int64), seed), strict=True
        )
    )
    # The slow reference: clients report one by one, equally fast ones in the order drawn.
    fastest = sorted(there, key=lambda client: durations[client])[:size]
    assert kept == [client for client in asked.tolist() if client in fastest]


def test_dropouts_come_at_their_rate_and_hit_everybody() -> None:
    rounds, rate = 2000, 0.3
    dropped = np.zeros(POPULATION)
    for number in range(1, rounds + 1):
        there = reporting(experiment(dropout=rate), POPULATION, EVERYONE, number, 0)
        dropped += 1
        dropped[there] -= 1
    sigma = math.sqrt(rounds * rate * (1 - rate))
    assert np.abs(dropped - rounds * rate).max() < 5 * sigma
    assert abs(dropped.mean() - rounds * rate) < 4.5 * sigma / math.sqrt(POPULATION)


def test_a_device_is_as_fast_in_every_round_and_population() -> None:
    settings = experiment(speed_sigma=0.5)
    few = log_durations(settings, 10, np.arange(10), 0)
    many = log_durations(settings, POPULATION, np.arange(POPULATION), 0)
    assert np.array_equal(few, many[:10])
    other = log_durations(settings, 10, np.arange(10), 1)
    assert not np.isclose(few, other).any()
    error = 0.5 / math.sqrt(POPULATION)
    assert abs(many.mean()) < 4.5 * error
    assert abs(many.std() - 0.5) < 4.5 * error / math.sqrt(2)


def test_slow_devices_miss_the_timeout_in_every_round() -> None:
    settings = experiment(speed_sigma=0.5, timeout=1.5)
    durations = np.exp(log_durations(settings, POPULATION, EVERYONE, 0))
    expected = EVERYONE[durations <= 1.5]
    for number in (1, 2):
        assert np.array_equal(reporting(settings, POPULATION, EVERYONE, number, 0), expected)
    # P(log-normal <= 1.5) = Phi(log(1.5) / 0.5) = 0.791; its spread here is 0.013.
    assert abs(len(expected) / POPULATION - 0.791) < 0.06


def test_equal_devices_take_the_median_s_time() -> None:
    for timeout, there in ((1.0, POPULATION), (0.99, 0)):
        settings = experiment(timeout=timeout)
        assert len(reporting(settings, POPULATION, EVERYONE, 1, 0)) == there


def test_a_draw_counts_those_that_were_asked() -> None:
    settings = experiment(20, over_selection=1.5, dropout=0.1, speed_sigma=1.0)
    draws = [draw_cohort(settings, POPULATION, None, number, 0) for number in range(1, 200)]
    assert {draw.drawn for draw in draws} == {30}
    # 30 drawn, 27 expected to report: hardly ever fewer than the 20 that are kept.
    assert np.mean([len(draw.reporting) == 20 for draw in draws]) > 0.95
