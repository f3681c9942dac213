"""Keys of seeded noise: the values that they depend on."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsi import Experiment
from fedsi.privacy.noise_streams import (
    NO_INPUT,
    noise_key,
    normal_for_count,
    normal_for_examples,
    round_key,
    standard_normal,
)

KEY = noise_key(Experiment(), "")
SUMS = np.arange(5) << 40


def changed(**keys: Any) -> bytes:
    given = {name.replace("__", "."): value for name, value in keys.items()}
    return noise_key(Experiment().updated(given), "")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"data__vocabulary": "users"},
        {"data__sequence_length": 19},
        {"client__learning_rate": 0.7},
        {"server__rounds": 51},
        {"privacy__mechanism": "gaussian", "privacy__noise_multiplier": 1.0}
        | {"server__sampling": "poisson", "server__averaging": "uniform"},
    ],
)
def test_settings_change_the_noise(change: dict[str, Any]) -> None:
    assert changed(**change) != KEY


def test_paths_and_what_is_no_input_do_not(tmp_path: Path) -> None:
    corpora = [changed(data__corpus=str(tmp_path / name)) for name in ("a.jsonl", "b.jsonl")]
    assert corpora[0] == corpora[1]
    assert changed(server__evaluate_every=7, server__evaluation_clients=3) == KEY
    words = [changed(data__vocabulary=str(tmp_path / name)) for name in ("a.txt", "b.txt")]
    assert words[0] == words[1] != KEY
    assert Experiment().flat().keys() >= NO_INPUT


def test_the_population_and_the_sums_change_the_noise() -> None:
    other = SUMS.copy()
    other[3] += 1
    keys = [KEY, noise_key(Experiment(), "0" * 64)]
    rounds = [round_key(key, sums) for key in keys for sums in (SUMS, other)]
    assert round_key(KEY, SUMS) == rounds[0]
    vectors = [
        standard_normal(key, number, 9, k) for key in rounds for number in (1, 2) for k in (0, 1)
    ]
    assert all(not np.isclose(a, b).any() for a, b in combinations(vectors, 2))
    assert np.array_equal(standard_normal(rounds[0], 1, 9, 0), vectors[0])


def test_counts_have_noise_of_their_own() -> None:
    key = round_key(KEY, SUMS)
    drawn = [normal_for_count(key, *of) for of in ((1, 3, 9), (2, 3, 9), (1, 4, 9), (1, 3, 10))]
    assert len(set(drawn)) == 4
    assert normal_for_count(key, 1, 3, 9) == drawn[0]
    many = [normal_for_count(key, number, 3, 9) for number in range(2000)]
    assert abs(np.mean(many)) < 4.5 / 2000**0.5
    assert abs(np.std(many) - 1) < 4.5 / 4000**0.5


def test_noise_of_devices_depends_on_what_it_hides() -> None:
    hidden = np.linspace(0, 1, 9, dtype=np.float32)
    other = np.nextafter(hidden, np.float32(2))
    cases = [
        (key, number, client, step, total)
        for key in (KEY, noise_key(Experiment(), "0" * 64))
        for number in (1, 2)
        for client in (0, 1)
        for step in (0, 1)
        for total in (hidden, other)
    ]
    vectors = [normal_for_examples(*case) for case in cases]
    assert all(not np.isclose(a, b).any() for a, b in combinations(vectors, 2))
    assert np.array_equal(normal_for_examples(*cases[3]), vectors[3])
