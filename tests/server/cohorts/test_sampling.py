import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi import Experiment, UserError
from fedsi.seeds import Seed
from server.cohorts.availability import Everyone, Ids, Trace
from server.cohorts.sampling import (
    allocated_cohort,
    check_cohort_size,
    cyclic_cohort,
    draw_cohort,
    poisson_cohort,
    shuffled_cohort,
    uniform_cohort,
)

HALF_THE_CLIENTS = Trace(np.arange(0, 400, 2), np.zeros(200), np.full(200, 9.0), 9.0)

DEVICES: list[dict[str, Any]] = [
    {},
    {"devices.availability": "diurnal"},
    {"devices.dropout": 0.3, "devices.speed_sigma": 1.0, "devices.timeout": 1.5},
]
SAMPLING: list[dict[str, Any]] = [
    {"server.sampling": "uniform"},
    {"server.sampling": "uniform", "devices.over_selection": 1.5},
    {"server.sampling": "poisson"},
    {"server.sampling": "poisson", "server.cohort_cap": 3},
    {"server.sampling": "allocated"},
    {"server.sampling": "cyclic", "server.groups": 4},
    {"server.sampling": "shuffled"},
    {"server.sampling": "shuffled", "server.min_separation": 2},
]


@given(
    st.sampled_from(SAMPLING),
    st.sampled_from(DEVICES),
    st.none() | st.just(HALF_THE_CLIENTS),
    st.integers(0, 99) | st.binary(min_size=32, max_size=32),
    st.integers(1, 99),
    st.integers(1, 60),
    st.integers(399, 900),
)
def test_cohorts_are_distinct_clients_and_repeatable(
    sampling: dict[str, Any],
    devices: dict[str, Any],
    trace: Trace | None,
    seed: Seed,
    number: int,
    size: int,
    population: int,
) -> None:
    keys = {"server.cohort_size": size, **sampling, **devices}
    experiment = Experiment().updated(keys)
    draw = draw_cohort(experiment, population, trace, number, seed)
    for other in (number + 1, 1):
        draw_cohort(experiment, population, trace, other, seed)
    again = draw_cohort(experiment, population, trace, number, seed)
    assert draw.reporting.dtype == np.int64
    assert np.array_equal(draw.reporting, again.reporting)
    assert draw.drawn == again.drawn >= len(draw.reporting)
    assert len(set(draw.reporting.tolist())) == len(draw.reporting)
    assert np.isin(draw.reporting, np.arange(population)).all()
    if sampling["server.sampling"] in {"uniform", "shuffled"}:
        assert len(draw.reporting) <= size
    if trace is not None:
        assert not (draw.reporting % 2).any()


def test_the_plain_draw_is_one_choice() -> None:
    # Recorded once; a change would silently change everybody's results.
    draw = draw_cohort(Experiment(seed=7, server={"cohort_size": 5}), 1000, None, 3, 7)
    assert draw.reporting.tolist() == [964, 308, 509, 187, 561]
    assert draw.drawn == 5


def test_every_client_is_as_likely_in_every_place() -> None:
    rounds, population, size = 20_000, 8, 3
    counts = np.zeros((size, population))
    for number in range(rounds):
        counts[np.arange(size), uniform_cohort(0, number, Everyone(population), size)] += 1
    expected = rounds / population
    sigma = np.sqrt(expected * (1 - 1 / population))
    assert np.abs(counts - expected).max() < 4.5 * sigma
    # The same bound catches a sampler that is off by a twentieth.
    assert 0.05 * expected > 2 * sigma


def test_pairs_occur_together_as_often_as_they_should() -> None:
    rounds, population, size = 20_000, 6, 2
    together = np.zeros((population, population))
    for number in range(rounds):
        a, b = sorted(uniform_cohort(1, number, Everyone(population), size).tolist())
        together[a, b] += 1
    counts = together[np.triu_indices(population, 1)]
    expected = rounds / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < 40  # 14 degrees of freedom


def test_a_large_population_costs_nothing() -> None:
    assert len(set(uniform_cohort(0, 1, Everyone(10**12), 1000).tolist())) == 1000


ROUNDS, POPULATION, SIZE = 20_000, 12, 3


def poisson_rounds(cap: int | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return who took part, ``[rounds, clients]``."""
    taken = np.zeros((ROUNDS, POPULATION), dtype=bool)
    for number in range(ROUNDS):
        taken[number, poisson_cohort(3, number, POPULATION, SIZE, cap)] = True
    return taken


def test_poisson_sampling_includes_each_client_on_its_own() -> None:
    taken = poisson_rounds(None).astype(np.float64)
    chance = SIZE / POPULATION
    sigma = math.sqrt(ROUNDS * chance * (1 - chance))
    assert np.abs(taken.sum(0) - ROUNDS * chance).max() < 4.5 * sigma
    together = (taken.T @ taken)[np.triu_indices(POPULATION, 1)]
    sigma = math.sqrt(ROUNDS * chance**2 * (1 - chance**2))
    assert np.abs(together - ROUNDS * chance**2).max() < 4.5 * sigma
    # Cohorts of fixed size would fail: there a client makes room for no other.
    fixed = ROUNDS * SIZE * (SIZE - 1) / (POPULATION * (POPULATION - 1))
    assert ROUNDS * chance**2 - fixed > 9 * sigma


def test_allocated_passes_have_each_client_once_in_an_independent_round() -> None:
    passes, population, size = 4_000, 10, 3  # so passes of 3 rounds
    rounds = np.zeros((passes, population), np.int64)
    for number in range(3 * passes):
        each, turn = divmod(number, 3)
        cohort = allocated_cohort(5, number + 1, population, size)
        assert not rounds[each, cohort].any()
        rounds[each, cohort] = turn + 1
    assert (rounds > 0).all()
    tolerance = 4.5 * math.sqrt(passes * 2 / 9)
    for turn in (1, 2, 3):
        assert np.abs((rounds == turn).sum(0) - passes / 3).max() < tolerance
    same = (rounds[:, :, None] == rounds[:, None, :]).sum(0)[np.triu_indices(population, 1)]
    assert np.abs(same - passes / 3).max() < tolerance
    # In a cut into cohorts of fixed size two clients share a round less often.
    assert passes / 3 - passes * (size - 1) / (population - 1) > 2 * tolerance
    again = (rounds[1:] == rounds[:-1]).sum(0)
    assert np.abs(again - passes / 3).max() < tolerance


def test_cyclic_groups_take_turns_and_include_their_clients_by_chance() -> None:
    population, size, groups, turns = 40, 4, 5, 2_000
    taken = np.zeros((groups, turns, population), bool)
    for number in range(groups * turns):
        turn, group = divmod(number, groups)
        taken[group, turn, cyclic_cohort(5, number + 1, population, size, groups)] = True
    members = taken.any(1)
    assert (members.sum(0) == 1).all()
    chance = groups * size / population
    often = taken.sum(1)[members]
    assert np.abs(often - turns * chance).max() < 4.5 * math.sqrt(turns * chance * (1 - chance))
    # Sizes of groups differ, because each client draws its own: removing one moves no other.
    sizes = np.bincount(
        [len(cyclic_cohort(seed, 1, 40, 8, 5)) for seed in range(4_000)], minlength=41
    )
    assert (sizes @ np.arange(41)) / 4_000 == pytest.approx(8, abs=0.2)
    assert sizes[8] < 1_200  # 4,000 in groups of equal size


def test_poisson_cohorts_have_binomial_sizes() -> None:
    sizes = np.bincount(poisson_rounds(None).sum(1), minlength=POPULATION + 1)
    chance = SIZE / POPULATION
    binomial = [
        ROUNDS * math.comb(POPULATION, k) * chance**k * (1 - chance) ** (POPULATION - k)
        for k in range(POPULATION + 1)
    ]
    poisson = [
        ROUNDS * math.exp(-SIZE) * SIZE**k / math.factorial(k) for k in range(POPULATION + 1)
    ]
    assert chi_square(sizes, binomial) < 30  # 7 degrees of freedom
    assert chi_square(sizes, poisson) > 200


def chi_square(counts: np.ndarray[Any, Any], expected: list[float], bins: int = 7) -> float:
    """Compare counts with what was expected, everything from the last bin on taken together."""
    seen = np.append(counts[:bins], counts[bins:].sum())
    wanted = np.append(expected[:bins], sum(expected[bins:]))
    return float(((seen - wanted) ** 2 / wanted).sum())


def test_a_cap_cuts_large_draws_at_random() -> None:
    whole, capped = poisson_rounds(None), poisson_rounds(4)
    assert np.array_equal(capped.sum(1), np.minimum(whole.sum(1), 4))
    assert (whole.sum(1) > 4).mean() > 0.1
    share = capped.sum() / POPULATION
    # Given the sizes, clients are exchangeable; a binomial's spread is more than theirs.
    assert np.abs(capped.sum(0) - share).max() < 4.5 * math.sqrt(share)


def test_poisson_sampling_at_its_ends() -> None:
    assert sorted(poisson_cohort(0, 1, 9, 9, None)) == list(range(9))
    assert any(len(poisson_cohort(0, number, 1000, 1, None)) == 0 for number in range(1, 20))


@given(st.data())
def test_a_poisson_draw_stays_below_the_largest_cohort(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    experiment = Experiment().updated({"server.sampling": "poisson", "server.cohort_size": size})
    number = data.draw(st.integers(1, 10**6))
    assert len(poisson_cohort(0, number, 10**6, size, None)) <= experiment.server.largest_cohort
    capped = experiment.updated({"server.cohort_cap": 3})
    assert capped.server.largest_cohort == 3
    assert Experiment().server.largest_cohort == Experiment().server.cohort_size


def passes_of(population: int, size: int, separation: int, passes: int, seed: int = 0) -> list[Ids]:
    """Return the cohorts of each pass: ``[rounds of a pass, size]`` each."""
    rounds = population // size
    return [
        np.stack(
            [
                shuffled_cohort(seed, 1 + k * rounds + turn, population, size, separation)
                for turn in range(rounds)
            ]
        )
        for k in range(passes)
    ]


def gaps(passes: list[Ids]) -> list[int]:
    """Return the rounds between all pairs of participations of a client, of every client."""
    seen: dict[int, list[int]] = {}
    for number, cohort in enumerate(np.concatenate(passes)):
        for client in cohort.tolist():
            seen.setdefault(client, []).append(number)
    return [
        later - earlier
        for rounds in seen.values()
        for place, earlier in enumerate(rounds)
        for later in rounds[place + 1 :]
    ]


@given(st.data())
def test_shuffled_passes_visit_everyone_once_and_keep_clients_apart(data: st.DataObject) -> None:
    population = data.draw(st.integers(1, 60))
    size = data.draw(st.integers(1, population))
    rounds = population // size
    separation = data.draw(st.integers(1, rounds))
    passes = passes_of(population, size, separation, 4, seed=data.draw(st.integers(0, 9)))
    everyone = sorted(passes[0].ravel().tolist())
    assert len(set(everyone)) == len(everyone) == rounds * size
    assert all(sorted(cohorts.ravel().tolist()) == everyone for cohorts in passes)
    assert min(gaps(passes)) >= separation


@pytest.mark.parametrize(("population", "size"), [(12, 2), (23, 3), (50, 10), (7, 1)])
def test_the_separation_is_reached_and_not_more(population: int, size: int) -> None:
    for separation in range(1, population // size + 1):
        apart = gaps(passes_of(population, size, separation, 150))
        assert min(apart) == separation


def test_a_pass_shuffles_its_clients_evenly() -> None:
    # One window of three rounds: each client is as often in each round, whichever it was before.
    passes, clients = 3000, 6
    turns = np.zeros((passes, clients), dtype=np.int64)
    for row, cohorts in zip(turns, passes_of(clients, 2, 1, passes), strict=True):
        for turn, cohort in enumerate(cohorts):
            row[cohort] = turn
    moves = np.zeros((3, 3))
    np.add.at(moves, (turns[:-1].ravel(), turns[1:].ravel()), 1)
    expected = moves.sum() / 9
    # Two clients share a round, so moves are not independent: a wide bound, 4 degrees of freedom.
    assert ((moves - expected) ** 2 / expected).sum() < 40
    stay = moves.trace() / moves.sum()
    assert abs(stay - 1 / 3) < 0.02


def experiment_with(**keys: Any) -> Experiment:
    return Experiment().updated({key.replace("__", "."): value for key, value in keys.items()})


@pytest.mark.parametrize("sampling", ["uniform", "poisson", "shuffled"])
def test_a_cohort_larger_than_the_population_is_refused(sampling: str) -> None:
    check_cohort_size(experiment_with(server__sampling=sampling, server__cohort_size=5), 5)
    with pytest.raises(UserError, match=r"server\.cohort_size = 6 is more than the 5 training"):
        check_cohort_size(experiment_with(server__sampling=sampling, server__cohort_size=6), 5)


def test_draws_and_separations_that_no_population_allows_are_refused() -> None:
    drawing = experiment_with(server__cohort_size=4, devices__over_selection=1.5)
    check_cohort_size(drawing, 6)
    with pytest.raises(UserError, match=r"over_selection = 1\.5 draws 6 clients .* the 5 training"):
        check_cohort_size(drawing, 5)
    cyclic = {"server__sampling": "cyclic", "server__cohort_size": 4}
    check_cohort_size(experiment_with(**cyclic, server__groups=5), 20)
    with pytest.raises(UserError, match=r"groups = 6 leaves 3\.83 of the 23 .* in a group, fewer"):
        check_cohort_size(experiment_with(**cyclic, server__groups=6), 23)
    apart = {"server__sampling": "shuffled", "server__cohort_size": 4}
    check_cohort_size(experiment_with(**apart, server__min_separation=5), 23)
    with pytest.raises(UserError, match=r"min_separation = 6 is more than the 5 rounds"):
        check_cohort_size(experiment_with(**apart, server__min_separation=6), 23)
