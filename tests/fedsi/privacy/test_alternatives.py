"""Ways to run a plan are compared by the error that they really have."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fedsi.plan import Plan
from fedsi.privacy.accounting import epsilon
from fedsi.privacy.alternatives import alternatives, at_equal_error, error, plans_by_way
from fedsi.privacy.mechanisms.table import build_mechanism
from fedsi.privacy.mechanisms.workload import workload_of

PLAN = Plan("gaussian", "poisson", 400, 20, 60, 1.0, 1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("way", plans_by_way(PLAN))
def test_the_error_is_that_of_drawn_noise(way: str, momentum: float) -> None:
    plan = replace(plans_by_way(PLAN)[way][-1], momentum=momentum, noise_multiplier=0.7)
    mechanism, rng, size = build_mechanism(plan), np.random.default_rng(0), 4_000
    state = mechanism.initial_state(size)
    noise = []
    for number in range(1, plan.rounds + 1):
        drawn = rng.standard_normal(size, np.float32)
        noise.append(mechanism.noise(state, number, {0: drawn}.__getitem__).astype(float))
    iterates = workload_of(plan).matrix() @ np.array(noise)
    measured = 0.7 / 20 * math.sqrt(float((iterates**2).mean()))
    assert error(plan) == pytest.approx(measured, rel=0.05)


def test_each_way_reaches_the_target_and_the_error() -> None:
    found = alternatives(PLAN, 2.0)
    assert [each.plan.sampling for each in found] == ["poisson", "allocated", "cyclic", "shuffled"]
    for each in found:
        assert 1.99 < epsilon(each.plan).epsilon == each.epsilon <= 2.0
        assert each.error == pytest.approx(error(each.plan))
    for each, same in zip(found, at_equal_error(PLAN, found[-1].error), strict=True):
        assert error(same.plan) == pytest.approx(found[-1].error)
        assert (same.epsilon < 2) == (each.error < found[-1].error) or each == found[-1]


def test_the_number_of_groups_is_the_best() -> None:
    plans = plans_by_way(PLAN)["cyclic groups, banded noise"]
    by_groups = {plan.groups: at_error(plan) for plan in plans}
    chosen = at_equal_error(PLAN, 0.2)[2]
    assert chosen.epsilon == min(by_groups.values())
    assert by_groups[chosen.plan.groups] == chosen.epsilon


def at_error(plan: Plan) -> float:
    return epsilon(replace(plan, noise_multiplier=0.2 / error(plan, 1.0))).epsilon


@pytest.mark.slow
def test_a_keyboard_sized_plan() -> None:
    """The gain of amplified banded noise over BLT: .663 of its error, or 1.24 instead of 2."""
    plan = Plan("gaussian", "poisson", 10**6, 6500, 2000, 1.0, 1e-10)
    *_, cyclic, blt = alternatives(plan, 2.0)
    assert cyclic.plan.groups == 8
    assert cyclic.plan.noise_multiplier == pytest.approx(2.75, rel=0.01)
    assert cyclic.error / blt.error == pytest.approx(0.663, rel=0.01)
    assert at_equal_error(plan, blt.error)[2].epsilon == pytest.approx(1.24, rel=0.01)
