"""Populations that a task generates: laws of sizes, fresh examples, the grid, refusals."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsi import Experiment, UserError
from fedsi.data.generated import GeneratedPopulation
from fedsi.data.population import ClientExamples
from fedsi.data.prepare import open_population, prepare_for
from fedsi.data.protocol import EOS, lengths_of
from fedsi.tasks.arithmetic_text import EQUALS


def made(cache: Path, population: int = 60, **task: Any) -> GeneratedPopulation:
    """Return a population of arithmetic with three lengths, 1 to 3 digits."""
    experiment = Experiment(
        task={"name": "arithmetic", "longest": 3, "examples": 8, **task},
        data={"population": population, "heldout_fraction": 0.2},
    )
    found = open_population(prepare_for(experiment, cache))
    assert isinstance(found, GeneratedPopulation)
    return found


def digits(population: GeneratedPopulation, client: int) -> list[int]:
    """Return the number of digits of each of a client's examples."""
    return [(int(length) - 5) // 3 for length in lengths_of(population.examples(client))]


def test_clients_are_a_pure_function_of_their_number(cache: Path) -> None:
    for law in ("one", "zipf", "mixed"):
        one, other = made(cache, law=law), made(cache, law=law)
        backwards = [other.examples(k) for k in reversed(range(20))][::-1]
        assert all(np.array_equal(one.examples(k), backwards[k]) for k in range(20))
        assert len({examples.tobytes() for examples in backwards}) == 20
        assert np.array_equal(one.examples(3, np.array([5, 2])), one.examples(3)[[5, 2]])
        assert one.examples(0).shape == (8, 14)
    with pytest.raises(IndexError):
        one.examples(60)


def test_laws_of_lengths(cache: Path) -> None:
    one = made(cache, law="one")
    assert [digits(one, k) for k in range(60)] == [[1 + k % 3] * 8 for k in range(60)]
    zipf = made(cache, population=900, law="zipf", exponent=2.0)
    drawn = Counter(digits(zipf, k)[0] for k in range(900))
    assert all(len(set(digits(zipf, k))) == 1 for k in range(60))
    expected = np.array([1, 1 / 4, 1 / 9]) / (1 + 1 / 4 + 1 / 9) * 900
    assert np.abs(np.array([drawn[k] for k in (1, 2, 3)]) - expected).max() < 60
    mixed = Counter(length for k in range(60) for length in digits(made(cache, law="mixed"), k))
    assert all(120 < mixed[k] < 200 for k in (1, 2, 3))


def test_held_out_clients_follow_the_law_and_the_grid_goes_beyond(cache: Path) -> None:
    population = made(cache, grid="2, 20", grid_examples=5)
    description = population.description
    assert (description.training_clients, description.heldout_clients) == (48, 12)
    assert description.grid == ["2", "20"]
    assert description.grid_clients == range(60, 62)
    assert [digits(population, k) for k in (60, 61)] == [[2] * 5, [20] * 5]
    other = population.on_grid(["4"], 3)
    assert digits(other, 60) == [4] * 3
    assert np.array_equal(other.examples(7), population.examples(7))


def test_fresh_examples_differ_between_rounds_and_others_do_not(cache: Path) -> None:
    for fresh in (False, True):
        population = made(cache, fresh=fresh)
        rounds = [ClientExamples(population, 4, number) for number in (1, 2, 1)]
        first, second, again = (examples[np.arange(8)] for examples in rounds)
        assert np.array_equal(first, again)
        assert np.array_equal(first, second) is not fresh
        assert len(rounds[0]) == 8


def test_estimates_and_vocabulary(cache: Path) -> None:
    population = made(cache)
    work = [population.work(k, None) for k in range(3)]
    assert work == [int(lengths_of(population.examples(k)).sum()) for k in range(3)]
    assert population.work(0, 2) == work[0] / 4
    rows = population.examples(2)
    text = population.vocabulary().decode(rows[0, 1 : list(rows[0]).index(EOS)].tolist())
    left, _, right = text.partition("=")
    assert sum(map(int, left.split("+"))) == int(right[::-1])
    assert (rows == EQUALS).any(1).all()
    assert population.find(["0", "59", "60", "x"]).tolist() == [0, 59, -1, -1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"task.grid": "5,0"}, "'0' is no length of arithmetic; give a number of digits of 1"),
        ({"task.grid": "-5"}, "'-5' is no length of arithmetic"),
        ({"task.grid": "7000000"}, "100 examples of length 7000000 have 21,000,005 tokens each"),
        ({"task.operands": 3, "task.grid": "20"}, "'20' is no length of additions with several"),
        ({"task.operands": 3, "task.grid": "4x1"}, "give digits x operands, with at least 2"),
        ({"task.operands": 3, "task.grid": "4x900000"}, "examples of length 4x900000 have 19,800"),
        ({"data.population": 10}, "each of 10 sizes to clients of its own, and there are 9"),
        ({"data.population": 1}, "data.population = 1 is not allowed"),
        ({"task.shortest": 11}, r"task.shortest \(11\) is more than task.longest \(10\)"),
        ({"task.longest": 0}, "task.longest = 0 is not allowed"),
        ({"task.exponent": 2.0}, "task.exponent=2.0 has no effect with task.law=one"),
        ({"data.corpus": "x.csv"}, "data.corpus has no effect with task.name=arithmetic, which"),
        ({"task.name": "next_word", "task.fresh": True}, "task.fresh=true has no effect with task"),
    ],
)  # fmt: skip
def test_impossible_settings_are_one_sentence(
    keys: dict[str, Any], message: str, cache: Path
) -> None:
    with pytest.raises(UserError, match=message):
        prepare_for(Experiment().updated({"task.name": "arithmetic", **keys}), cache)
