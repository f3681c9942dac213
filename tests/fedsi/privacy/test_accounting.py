"""Privacy costs against reference values, other libraries, and what must hold of any cost."""

import math
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from opacus.accountants import RDPAccountant

from fedsi import Experiment
from fedsi.errors import UserError
from fedsi.plan import Plan
from fedsi.privacy import accounting
from fedsi.privacy.accounting import (
    accounted_plan,
    all_costs,
    calibrated,
    correlated_cost,
    epsilon,
    noise_on_mean,
    simulated_noise_multiplier,
)
from fedsi.schedule import Schedule
from tests.fedsi.test_plan import plan

POISSON = Plan("gaussian", "poisson", 100_000, 1000, 1000, 1.0, 1e-6)
UNIFORM = Plan("gaussian", "uniform", 1000, 10, 100, 1.0, 1e-6)
SHUFFLED = Plan("banded", "shuffled", 1000, 4, 1000, 2.0, 1e-10, min_separation=250)


@dataclass(frozen=True)
class Stub:
    """Stands for a noise mechanism whose participations have orthogonal columns of norm 1."""

    plan: Plan
    slack: float = 0.0

    def sensitivity_after(self, rounds: int) -> float:
        return math.sqrt(self.plan.participations_within(rounds))

    def row_norms(self, rounds: int) -> NDArray[np.float64]:
        return np.full(rounds, 3.0)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "build_mechanism", Stub)
    for name in ("_built", "_mean_row_norm"):
        monkeypatch.setattr(accounting, name, lru_cache(getattr(accounting, name).__wrapped__))


def by_accountant(priced: Plan) -> dict[str, float]:
    return {cost.accountant: cost.epsilon for cost in all_costs(priced)}


def test_poisson_reference_values() -> None:
    costs = by_accountant(POISSON)
    assert costs == {
        "PLD": pytest.approx(2.125, rel=0.01),
        "PRV": pytest.approx(2.135, rel=0.01),
        "RDP": pytest.approx(2.437, rel=0.01),
    }
    assert epsilon(POISSON).epsilon == costs["PLD"]


def test_truncated_poisson_reference_value() -> None:
    capped = replace(POISSON, cohort_cap=1150)
    assert by_accountant(capped) == {"PLD": pytest.approx(2.139, rel=1e-3)}
    assert epsilon(capped).note == "Poisson sampling truncated at 1150"


def test_fixed_size_halves_the_noise_multiplier() -> None:
    tight, loose = all_costs(UNIFORM)
    assert tight.epsilon == pytest.approx(8.081, rel=1e-3)
    assert loose.epsilon == pytest.approx(13.5, rel=0.01)
    assert "loose" in loose.note
    assert tight.adjacency == loose.adjacency == "replace one client"
    # What comes out if it is passed through, as others do.
    passed = all_costs(replace(UNIFORM, noise_multiplier=2.0))[1]
    assert passed.epsilon == pytest.approx(1.79, rel=0.01)


def test_fixed_size_is_at_least_one_exact_round() -> None:
    once = replace(UNIFORM, cohort_size=1000, rounds=1)
    exact = correlated_cost(once, sensitivity=2.0).epsilon
    assert exact <= epsilon(once).epsilon < 1.001 * exact


def test_against_the_library_with_its_own_grid() -> None:
    for priced in (POISSON, replace(POISSON, noise_multiplier=0.6, rounds=50)):
        accountant = PLDAccountant()
        event = dp_accounting.PoissonSampledDpEvent(
            priced.sampling_rate, dp_accounting.GaussianDpEvent(priced.noise_multiplier)
        )
        accountant.compose(event, priced.rounds)
        fine = accountant.get_epsilon(priced.delta)
        assert fine <= epsilon(priced).epsilon < 1.002 * fine


def test_renyi_divergence_against_opacus() -> None:
    other = RDPAccountant()
    other.history = [(1.0, 0.01, 1000)]
    assert by_accountant(POISSON)["RDP"] == pytest.approx(other.get_epsilon(1e-6), rel=1e-3)


def test_full_participation_is_exact() -> None:
    everyone = replace(POISSON, population=100, cohort_size=100, rounds=30, noise_multiplier=4.0)
    exact = correlated_cost(everyone, sensitivity=math.sqrt(30)).epsilon
    assert epsilon(everyone).epsilon == pytest.approx(exact, rel=2e-3)
    assert "PRV" not in by_accountant(everyone)


@pytest.mark.parametrize(("rho", "cost"), [(0.1507, 3.42), (0.01434, 0.994)])
def test_published_costs_of_correlated_noise(rho: float, cost: float) -> None:
    noise = replace(SHUFFLED, noise_multiplier=2 / math.sqrt(2 * rho))
    found = correlated_cost(noise, sensitivity=2.0)
    assert found.epsilon == pytest.approx(cost, rel=2e-3)
    assert found.rho == pytest.approx(rho)


def test_correlated_noise_asks_the_mechanism(stub: None) -> None:
    exact, loose = all_costs(SHUFFLED)
    assert exact == correlated_cost(SHUFFLED, sensitivity=2.0)
    assert exact.rho == loose.rho == 0.5
    assert exact.epsilon < loose.epsilon
    assert noise_on_mean(SHUFFLED) == pytest.approx(3.0 * 2.0 / 4)


def test_first_rounds_have_fewer_participations(stub: None) -> None:
    sensitivities = [epsilon(SHUFFLED, rounds).sensitivity for rounds in (0, 1, 250, 251, 1000)]
    assert sensitivities == pytest.approx([0, 1, 1, math.sqrt(2), 2])
    assert epsilon(SHUFFLED, 0).epsilon == 0


@pytest.mark.parametrize("mechanism", ["tree", "banded", "blt"])
def test_epsilon_so_far_grows_to_that_of_the_run(mechanism: str) -> None:
    """Each round takes milliseconds, optimising and the first one apart."""
    priced = replace(SHUFFLED, mechanism=mechanism, population=400, min_separation=90)
    whole = epsilon(priced)
    started = time.perf_counter()
    so_far = [epsilon(priced, rounds).epsilon for rounds in range(1001)]
    assert (time.perf_counter() - started) / 1000 < 0.02
    assert all(earlier <= later for earlier, later in pairwise(so_far))
    assert so_far[0] == 0
    assert so_far[1] < 0.6 * so_far[-1]
    assert so_far[-1] == whole.epsilon


@pytest.mark.parametrize("priced", [POISSON, UNIFORM, SHUFFLED], ids=lambda p: str(p.sampling))
def test_no_noise_is_infinite(stub: None, priced: Plan) -> None:
    for noise in (0.0, 1e-5):
        costs = all_costs(replace(priced, noise_multiplier=noise))
        assert costs
        assert all(cost.epsilon == math.inf for cost in costs)


@pytest.mark.parametrize("priced", [POISSON, UNIFORM], ids=["poisson", "uniform"])
def test_pricing_round_by_round_is_pricing_at_once(priced: Plan) -> None:
    shorter = replace(priced, rounds=20)
    costs = [epsilon(shorter, rounds).epsilon for rounds in range(21)]
    assert costs[0] == 0
    assert costs == sorted(costs)
    assert costs[-1] == epsilon(shorter).epsilon
    # The grid is that of the whole plan, so a plan of so many rounds differs by the grid alone.
    assert costs[10] == pytest.approx(epsilon(replace(priced, rounds=10)).epsilon, rel=2e-3)


def test_two_halves_compose_to_the_whole() -> None:
    accountant = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
    event = dp_accounting.SampledWithoutReplacementDpEvent(
        1000, 10, dp_accounting.GaussianDpEvent(0.5)
    )
    accountant.compose(event, 60).compose(event, 40)
    assert all_costs(UNIFORM)[1].epsilon == pytest.approx(accountant.get_epsilon(1e-6), rel=1e-9)


def test_a_round_more_is_priced_in_no_time() -> None:
    epsilon(POISSON, 1)
    started = time.process_time()
    for rounds in range(500, 520):
        epsilon(POISSON, rounds)
    # About .015 s a round; ten times that on a machine that is busy and slow.
    assert time.process_time() - started < 20 * 0.15


@settings(max_examples=6)
@given(
    st.floats(0.5, 8), st.integers(1, 2000), st.integers(1, 300), st.floats(1e-9, 1e-3),
    st.sampled_from(["poisson", "uniform"]),
)  # fmt: skip
def test_less_noise_more_rounds_and_larger_cohorts_cost_more(
    noise: float, rounds: int, cohort: int, delta: float, sampling: str
) -> None:
    base = plan(
        sampling=sampling, noise_multiplier=noise, rounds=rounds, cohort_size=cohort, delta=delta
    )
    # The grids of two plans differ, by .2 per cent of epsilon at most.
    least = epsilon(base).epsilon * (1 - 2e-3)
    assert epsilon(replace(base, noise_multiplier=noise * 0.9)).epsilon >= least
    assert epsilon(replace(base, rounds=2 * rounds)).epsilon >= least
    assert epsilon(replace(base, cohort_size=2 * cohort)).epsilon >= least
    assert epsilon(replace(base, delta=delta / 2)).epsilon >= least


def test_a_delta_that_cannot_be_resolved() -> None:
    with pytest.raises(UserError, match="delta = 1e-12 is below 1e-11"):
        epsilon(replace(POISSON, delta=1e-12))


def test_calibration_reference_value() -> None:
    assert calibrated(POISSON, 2.0).noise_multiplier == pytest.approx(1.029, rel=1e-3)


@pytest.mark.parametrize("target", [0.3, 300.0])
@pytest.mark.parametrize(
    "priced",
    [POISSON, replace(POISSON, cohort_cap=1100), UNIFORM, SHUFFLED],
    ids=["poisson", "truncated", "uniform", "shuffled"],
)
def test_calibrated_noise_is_enough_and_no_more(stub: None, priced: Plan, target: float) -> None:
    found = calibrated(priced, target)
    assert epsilon(found).epsilon <= target
    less = replace(found, noise_multiplier=found.noise_multiplier * 0.997)
    assert epsilon(less).epsilon > target
    assert replace(found, noise_multiplier=priced.noise_multiplier) == priced


def test_calibration_of_the_impossible() -> None:
    with pytest.raises(UserError, match=r"target epsilon of 0\.0 is not allowed"):
        calibrated(POISSON, 0.0)
    with pytest.raises(UserError, match="no noise multiplier gives epsilon = 1e-12 at delta"):
        calibrated(replace(UNIFORM, delta=1e-20), 1e-12)


def private(**changes: Any) -> Experiment:
    keys: dict[str, Any] = {
        "privacy.mechanism": "gaussian",
        "privacy.noise_multiplier": 0.8,
        "server.sampling": "poisson",
        "server.averaging": "uniform",
        "server.cohort_size": 50,
        "server.rounds": 30,
    }
    return Experiment().updated(keys | {key.replace("__", "."): v for key, v in changes.items()})


def test_an_experiment_is_accounted_as_it_is_simulated() -> None:
    experiment = private(server__cohort_cap=70, privacy__delta=1e-5)
    found = accounted_plan(experiment, 500)
    assert found == Plan("gaussian", "poisson", 500, 50, 30, 0.8, 1e-5, cohort_cap=70)
    assert simulated_noise_multiplier(found, found) == 0.8


def test_extrapolation_keeps_the_noise_on_the_mean() -> None:
    experiment = private(privacy__population=10**6, privacy__cohort_size=5000)
    found = accounted_plan(experiment, 500)
    assert (found.population, found.cohort_size) == (10**6, 5000)
    assert found.delta == pytest.approx(1e-6**1.1)
    simulated = simulated_noise_multiplier(replace(found, population=500, cohort_size=50), found)
    assert simulated == pytest.approx(0.008)
    assert simulated / 50 == pytest.approx(noise_on_mean(found))


def test_a_target_is_calibrated() -> None:
    aim = {"privacy__noise_multiplier": "none", "privacy__target_epsilon": 3.0}
    found = accounted_plan(private(**aim), 500)
    assert 2.99 < epsilon(found).epsilon <= 3.0


@pytest.mark.parametrize(("optimizer", "momentum"), [("sgdm", 0.7), ("sgd", 0.0), ("adam", 0.0)])
def test_what_correlated_noise_is_optimised_for(optimizer: str, momentum: float) -> None:
    experiment = private(
        privacy__mechanism="banded",
        privacy__bands=3,
        server__sampling="shuffled",
        server__min_separation=5,
        server__optimizer=optimizer,
        **({} if optimizer == "sgd" else {"server__momentum": 0.7}),
        server__schedule="cooldown",
        server__warm_up_rounds=4,
        server__final_fraction=0.1,
    )
    found = accounted_plan(experiment, 500)
    assert (found.bands, found.min_separation, found.momentum) == (3, 5, momentum)
    assert found.schedule == Schedule("cooldown", 4, 0.1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"privacy__noise_multiplier": "none"}, "needs either privacy.noise_multiplier or"),
        ({"privacy__target_epsilon": 1.0}, "needs either privacy.noise_multiplier or"),
        ({"server__sampling": "shuffled"}, "has no valid accounting"),
        (
            {"server__sampling": "uniform", "devices__over_selection": 1.3},
            "void the amplification",
        ),
        (
            {"server__sampling": "uniform", "devices__availability": "diurnal"},
            "void the amplification",
        ),
    ],
)
def test_experiments_without_accounting_cannot_be_made(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        private(**changes)


def test_a_cap_below_the_accounted_cohort_is_refused() -> None:
    capped = private(server__cohort_cap=60, privacy__cohort_size=100)
    with pytest.raises(UserError, match="cohort_cap = 60 is less than the accounted cohort of 100"):
        accounted_plan(capped, 500)


@pytest.mark.parametrize("noise", [-1.0, 1e200, math.inf, math.nan])
def test_impossible_noise_multipliers_are_refused(noise: float) -> None:
    with pytest.raises(UserError, match=r"noise multiplier of .* is not allowed"):
        replace(POISSON, noise_multiplier=noise)


@pytest.mark.parametrize("target", [0.0, -1.0, 1e300, math.inf, math.nan])
def test_impossible_targets_are_refused(target: float) -> None:
    with pytest.raises(UserError, match=r"target epsilon of .* is not allowed"):
        calibrated(POISSON, target)
