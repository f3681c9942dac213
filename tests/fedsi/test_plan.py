"""A plan that has no valid accounting cannot be made."""

from itertools import product
from typing import Any

import pytest

from fedsi.errors import UserError
from fedsi.experiment.privacy import OWN_KEYS
from fedsi.plan import SAMPLINGS, Plan
from fedsi.privacy.mechanisms.table import MECHANISMS

VALID = {
    *product(["gaussian"], ["poisson", "allocated", "cyclic", "uniform"]),
    *product(["tree", "banded", "blt"], ["shuffled"]),
    ("banded", "cyclic"),
}


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "mechanism": "gaussian",
        "sampling": "poisson",
        "population": 1000,
        "cohort_size": 10,
        "rounds": 100,
        "noise_multiplier": 1.0,
        "delta": 1e-6,
    }
    return Plan(**values | changes)


@pytest.mark.parametrize(("mechanism", "sampling"), list(product(MECHANISMS, SAMPLINGS)))
def test_pairings(mechanism: str, sampling: str) -> None:
    if (mechanism, sampling) in VALID:
        plan(mechanism=mechanism, sampling=sampling)
        return
    with pytest.raises(UserError, match=r"has no valid accounting: .*; use server\.sampling="):
        plan(mechanism=mechanism, sampling=sampling)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"mechanism": "none"},
            "mechanism = 'none' is not allowed: expected one of gaussian, tree",
        ),
        ({"mechanism": "gausian"}, "mechanism = 'gausian' is not allowed: did you mean gaussian?"),
        ({"sampling": "daily"}, "sampling=daily has no valid accounting: .* use server.sampling="),
        ({"cohort_size": 1001}, "a cohort of 1001 is more than the population of 1000"),
        ({"noise_multiplier": -1.0}, "noise multiplier of -1.0 is not allowed"),
        ({"noise_multiplier": float("nan")}, "noise multiplier of nan is not allowed"),
        ({"delta": 0.0}, "delta = 0.0 is not allowed"),
        ({"delta": 1.0}, "delta = 1.0 is not allowed"),
        ({"momentum": 1.0}, "momentum of 1.0 is not allowed"),
        ({"sampling": "uniform", "cohort_cap": 20}, "cap of cohorts has no effect with uniform"),
        ({"min_separation": 2}, "poisson sampling does not keep a client's participations apart"),
        (
            {"mechanism": "tree", "sampling": "shuffled", "min_separation": 101},
            "separation of 101 is more than the 100 rounds",
        ),
    ],
)
def test_impossible_numbers(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        plan(**changes)


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({}, 3),
        ({"rounds": 200}, 2),
        ({"rounds": 201}, 3),
        ({"participations": 2}, 2),
        ({"participations": 9, "min_separation": 100}, 3),
    ],
)
def test_most_participations(changes: dict[str, Any], most: int) -> None:
    shuffled = plan(**{"mechanism": "tree", "sampling": "shuffled", "rounds": 300} | changes)
    assert shuffled.most_participations == most


def test_every_key_that_only_some_mechanisms_have_is_used_by_one() -> None:
    used = frozenset[str]().union(*(MECHANISMS[name].keys for name in MECHANISMS))
    assert used == frozenset(OWN_KEYS)
