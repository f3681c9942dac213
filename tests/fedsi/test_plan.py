"""A plan that has no valid accounting cannot be made."""

from itertools import product
from typing import Any, get_args

import pytest

from fedsi.errors import UserError
from fedsi.experiment import PrivacySettings, ServerSettings
from fedsi.plan import MECHANISMS, SAMPLINGS, Plan
from fedsi.privacy.mechanisms import table

VALID = {("gaussian", "poisson"), ("gaussian", "uniform")} | {
    (mechanism, "shuffled") for mechanism in ("tree", "banded", "blt")
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
        ({"mechanism": "none"}, "mechanism=none with .* it is none of those that can be accounted"),
        ({"sampling": "daily"}, "sampling=daily has no valid accounting: .* gaussian with poisson"),
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


def test_a_mechanism_that_nobody_has_accounted_for_is_never_priced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is refused though the table can build it."""
    monkeypatch.setitem(table._MODULES, "silent", "fedsi.privacy.mechanisms.gaussian")
    for sampling in (*SAMPLINGS, "another"):
        with pytest.raises(UserError, match=r"mechanism=silent .* has no valid accounting"):
            plan(mechanism="silent", sampling=sampling)


def test_what_can_be_chosen_can_be_accounted_for_and_built() -> None:
    chosen = get_args(PrivacySettings.model_fields["mechanism"].annotation)
    assert set(chosen) - {"none"} == set(MECHANISMS) == set(table._MODULES)
    assert set(get_args(ServerSettings.model_fields["sampling"].annotation)) == set(SAMPLINGS)
