from dataclasses import replace

import numpy as np
import pytest

from fedsi.plan import Plan
from fedsi.privacy.accounting import epsilon
from fedsi.privacy.claimed_curve import claimed_curve
from fedsi.privacy.zcdp import epsilon_of

EVERYONE = Plan("gaussian", "poisson", 100, 100, 9, 6.0, 1e-5)


def test_the_curve_of_a_gaussian_is_exact_and_ends_with_the_claim() -> None:
    curve = claimed_curve(EVERYONE, 4)
    assert curve
    mu = 2 / 6.0
    assert np.allclose(curve.epsilons, [epsilon_of(mu**2 / 2, delta) for delta in curve.deltas])
    assert (curve.deltas[-1], curve.epsilons[-1]) == (1e-5, epsilon(EVERYONE, 4).epsilon)


@pytest.mark.parametrize(
    "plan",
    [
        replace(EVERYONE, cohort_size=10),
        pytest.param(
            replace(EVERYONE, cohort_size=10, sampling="allocated"), marks=pytest.mark.slow
        ),
        replace(EVERYONE, cohort_size=10, sampling="uniform"),
        pytest.param(
            replace(EVERYONE, cohort_size=10, sampling="cyclic", groups=2), marks=pytest.mark.slow
        ),
        replace(EVERYONE, mechanism="blt", sampling="shuffled", cohort_size=10, min_separation=3),
    ],
)
def test_every_accounting_has_a_curve(plan: Plan) -> None:
    curve = claimed_curve(plan, plan.rounds)
    assert curve
    assert (np.diff(curve.epsilons) >= 0).all()
    assert curve.epsilons[-1] == epsilon(plan).epsilon > 0


def test_an_infinite_claim_has_no_curve() -> None:
    assert claimed_curve(replace(EVERYONE, noise_multiplier=0.0), 9) is None
