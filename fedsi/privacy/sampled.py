"""Accountants for cohorts sampled by chance, from dp-accounting and opacus.

Under Poisson sampling, with or without a cap, prices hold for adding or removing one client. Under
sampling of fixed size they hold for replacing one client by another.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import absl.logging
import dp_accounting
import numpy as np
from dp_accounting.pld import privacy_loss_distribution as losses
from dp_accounting.rdp import RdpAccountant, compute_epsilon
from numpy.typing import NDArray

from fedsi.errors import UserError
from fedsi.plan import Plan

LEAST_DELTA = 1e-11
"""Privacy loss distributions are convolved in float64, which leaves nothing below this."""

_ROUNDING = 2.0**-51
"""Bound on what each round adds to the error of a convolved tail, as a probability: the Fourier
transform's unit roundoff to the power of the rounds. Over 2,000 random plans, against the closed
form and against convolution in extended precision, the error was at most 0.4 times that."""

_LARGEST_PRV_EPSILON = 50.0
"""Opacus' PRV accountant makes a grid of fixed fineness as wide as epsilon."""


def pld_epsilon(plan: Plan, rounds: int) -> float:
    """Price Poisson sampling, truncated if the plan has a cap, by privacy loss distributions.

    An upper bound, within about .1 per cent for the usual deltas: what float64 may have lost of the
    tail is taken from delta. The distribution of one round is kept, so each further number of
    rounds costs one power of a Fourier transform.

    Raises:
        UserError: A delta below ``least_delta``.
    """
    least = least_delta(plan.rounds)
    if plan.delta < least:
        raise UserError(
            f"delta = {plan.delta} is below {least:.3g}, the least for which {plan.rounds} rounds "
            "of Poisson sampling can be accounted; choose a larger delta"
        )
    one_round = _losses_of_a_round(
        plan.population,
        plan.cohort_size,
        plan.cohort_cap,
        plan.noise_multiplier,
        _interval(plan),
    )
    left = plan.delta - _lost(rounds)
    return float(one_round.self_compose(rounds).get_epsilon_for_delta(left))


def least_delta(rounds: int) -> float:
    """Return the least delta of ``pld_epsilon``: twice what rounding may hide."""
    return max(LEAST_DELTA, 2 * _lost(rounds))


def _lost(rounds: int) -> float:
    """Return a bound on the tail's error after so many rounds, and of the transform itself."""
    return (rounds + 16) * _ROUNDING


def poisson_rdp_epsilon(plan: Plan, rounds: int) -> float:
    """Price Poisson sampling without a cap by Renyi differential privacy; looser than PLD."""
    event = dp_accounting.PoissonSampledDpEvent(
        plan.sampling_rate, dp_accounting.GaussianDpEvent(plan.noise_multiplier)
    )
    return _rdp_epsilon(event, dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, plan, rounds)


def fixed_size_rdp_epsilon(plan: Plan, rounds: int) -> float:
    """Price sampling of fixed size without replacement by Renyi differential privacy; loose.

    Replacing one client moves a sum of clipped updates by twice the clip norm. dp-accounting takes
    the noise multiplier for one that was computed so and does not double
    (google/differential-privacy #378), hence half of it.
    """
    event = dp_accounting.SampledWithoutReplacementDpEvent(
        plan.population,
        plan.cohort_size,
        dp_accounting.GaussianDpEvent(plan.noise_multiplier / 2),
    )
    return _rdp_epsilon(event, dp_accounting.NeighboringRelation.REPLACE_ONE, plan, rounds)


def zcdp_rdp_epsilon(rho: float, delta: float) -> float:
    """Price rho-zCDP as if nothing more were known of the mechanism: looser than ``zcdp``."""
    accountant = RdpAccountant()
    accountant.compose(dp_accounting.ZCDpEvent(rho))
    return float(accountant.get_epsilon(delta))


def prv_epsilon(plan: Plan, rounds: int) -> float | None:
    """Price Poisson sampling without a cap by opacus' PRV accountant, within .01 from above.

    Returns:
        None where it does not work: if every client is in every round, or epsilon is large, or
        delta too small for its grid.
    """
    # Opacus brings torch along, which is not needed otherwise.
    from opacus.accountants import PRVAccountant  # noqa: PLC0415

    if plan.sampling_rate == 1 or pld_epsilon(plan, rounds) > _LARGEST_PRV_EPSILON:
        return None
    accountant = PRVAccountant()
    accountant.history = [(plan.noise_multiplier, plan.sampling_rate, rounds)]
    with warnings.catch_warnings():
        # Of the orders of a first, rough bound, which is valid for any.
        warnings.filterwarnings("ignore", message="Optimal order is")
        try:
            return float(accountant.get_epsilon(delta=plan.delta - _lost(rounds)))
        except ValueError:  # that floating point errors will dominate
            return None


@lru_cache(maxsize=4)
def _losses_of_a_round(
    population: int, cohort_size: int, cap: int | None, noise_multiplier: float, interval: float
) -> Any:
    """Return one round's ``PrivacyLossDistribution`` on a grid of multiples of ``interval``."""
    if cap is None:
        return losses.from_gaussian_mechanism(
            noise_multiplier,
            value_discretization_interval=interval,
            sampling_prob=cohort_size / population,
        )
    return losses.from_truncated_subsampled_gaussian_mechanism(
        dataset_size=population,
        sampling_probability=cohort_size / population,
        truncated_batch_size=cap,
        noise_multiplier=noise_multiplier,
        value_discretization_interval=interval,
    )


def _interval(plan: Plan) -> float:
    """Return the grid's interval: fine for all rounds and for one, yet of few points.

    dp-accounting's fixed 1e-4 costs minutes for little noise, and is coarse for much of it. The
    losses of all rounds have about the standard deviation ``sqrt(rounds * divergence)``, where
    divergence is the Renyi divergence of order 2 of one round.
    """
    exponent = plan.noise_multiplier**-2
    q = plan.sampling_rate
    # The second is the first where q^2 e^exponent is beyond all floats.
    few = exponent < 500
    divergence = math.log1p(q**2 * math.expm1(exponent)) if few else exponent + 2 * math.log(q)
    total = plan.rounds * divergence
    fine = min(
        (math.sqrt(total) + total / 2) / 500,
        math.sqrt(divergence) / 8,
        (exponent + math.sqrt(exponent)) / 200,
    )
    # The largest loss that one round can show, ten standard deviations out.
    widest = np.logaddexp(0, math.log(q) + exponent / 2 + 10 * math.sqrt(exponent))
    return max(fine, float(widest) / 50_000)


def _rdp_epsilon(
    event: dp_accounting.DpEvent,
    relation: dp_accounting.NeighboringRelation,
    plan: Plan,
    rounds: int,
) -> float:
    orders, divergences = _rdp_of_a_round(event, relation)
    return float(compute_epsilon(orders, rounds * divergences, plan.delta)[0])


@lru_cache(maxsize=4)
def _rdp_of_a_round(
    event: dp_accounting.DpEvent, relation: dp_accounting.NeighboringRelation
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the orders and one round's divergences, ``[orders]`` each."""
    accountant = RdpAccountant(neighboring_relation=relation)
    # Orders whose series does not converge are left out, which the library says line by line.
    with _quiet_absl():
        accountant.compose(event)
    # Next to no divergence may come out below zero by rounding.
    return accountant.orders, np.maximum(accountant.rdp, 0)


@contextmanager
def _quiet_absl() -> Iterator[None]:
    """Within this context absl, by which dp-accounting logs, says nothing but errors."""
    before = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        yield
    finally:
        absl.logging.set_verbosity(before)
