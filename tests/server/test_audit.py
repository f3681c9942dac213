"""Audits of real canaries, cohorts, clipping and noise, without models."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pytest

from fedsi.privacy import canaries
from fedsi.privacy.claimed_curve import claimed_curve
from server import audit as of_server
from server.differential_privacy import Privacy
from tests.audits import CANARIES, POISSON, SHUFFLED, audited, planned

ALLOCATED = {**POISSON, "server.sampling": "allocated", "server.cohort_size": 205}
FIXED_SIZE = {**POISSON, "server.sampling": "uniform"}
PLANS = {
    "poisson": POISSON,
    "little noise": {**POISSON, "server.cohort_size": 60, "privacy.noise_multiplier": 0.8},
    "allocated": ALLOCATED,
    "fixed size": FIXED_SIZE,
    "blt": SHUFFLED,
    "tree": {**SHUFFLED, "privacy.mechanism": "tree", "privacy.noise_multiplier": 10.0},
}


@pytest.fixture(autouse=True)
def nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Account for each plan once, and draw each run's directions once."""
    monkeypatch.setattr(of_server, "claimed_curve", cache(claimed_curve))
    monkeypatch.setattr(canaries, "direction", lru_cache(CANARIES)(canaries.direction))


def test_a_run_with_known_turns_is_scored_by_matched_sums() -> None:
    experiment, private = planned(SHUFFLED)
    found = audited(experiment, private)
    z, sensitivity = private.noise_multiplier, private.mechanism.sensitivity
    # Other canaries add a little to the deviation of the noise.
    assert found.summary.deviation_out == pytest.approx(z, rel=0.15)
    assert 0.75 * sensitivity < found.summary.mean_in < sensitivity + 3 * z / 14
    assert not found.summary.refuted


def test_half_of_the_claim_is_reached() -> None:
    bounds, claim = [], 0.0
    for seed in range(3):
        experiment, private = planned(POISSON, seed)
        claim = private.cost(20).epsilon
        bounds.append(audited(experiment, private).summary.bound)
    assert claim / 2 < float(np.median(bounds)) < claim


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_of_200_honest_runs_at_most_5_per_cent_are_refuted(name: str) -> None:
    runs = [audited(*planned(PLANS[name], seed)).summary for seed in range(200)]
    assert sum(run.refuted for run in runs) <= 10


def noise_times(factor: float) -> Callable[[Privacy], Privacy]:
    return lambda run: replace(run, noise_multiplier=factor * run.noise_multiplier)


FAULTS: dict[str, tuple[dict[str, Any], Callable[[Privacy], Privacy]]] = {
    "no noise": (POISSON, noise_times(0.0)),
    "half the noise": (POISSON, noise_times(0.5)),
    "half the noise, correlated": (SHUFFLED, noise_times(0.5)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_noise_is_caught(name: str) -> None:
    settings, planted = FAULTS[name]
    experiment, private = planned(settings)
    assert audited(experiment, planted(private)).summary.refuted
