"""Privacy accounting: epsilon of a plan at its delta, from the accountants valid for it.

The adjacency, i.e. how two populations with indistinguishable outputs may differ, depends on the
sampling:

| cohorts | noise | accountant | adjacency |
|---|---|---|---|
| Poisson, also with a cap | independent | privacy loss distributions | add or remove one client |
| everyone in every round | independent | zCDP, exact for a Gaussian | add or remove one client |
| allocated passes | independent | privacy loss distributions | add or remove one client |
| cyclic groups | independent or banded | privacy loss distributions | add or remove one client |
| fixed size | independent | privacy loss distributions, half the noise | replace one client |
| shuffled passes | correlated | zCDP, exact for a Gaussian | zero out one client |

A client that is zeroed out keeps its turns and contributes zeros. If it were removed instead, the
passes would be shuffled anew and all other clients would move. ``Plan`` refuses every other
pairing. Opacus' GDP accountant is never used: its central limit theorem underestimates epsilon.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from scipy import optimize

from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.plan import LARGEST_NOISE_MULTIPLIER, Plan, usual_delta
from fedsi.privacy import sampled_accounting, zcdp
from fedsi.privacy.allocated_accounting import allocated_epsilon
from fedsi.privacy.mechanisms.kind import Accounting
from fedsi.privacy.mechanisms.mechanism import Mechanism
from fedsi.privacy.mechanisms.table import build_mechanism
from fedsi.schedule import Schedule

LEAST_NOISE_MULTIPLIER = 1e-3
"""Least noise multiplier with a finite epsilon; below it epsilon would be in the hundreds of
thousands and is reported as infinite."""

LARGEST_TARGET = 1e3
"""Largest target epsilon accepted for calibration; larger ones promise nothing."""

_LARGEST_LOG_NOISE = math.log(LARGEST_NOISE_MULTIPLIER) - math.log(4)
_CALIBRATION_TOLERANCE = 1e-4
"""Relative tolerance of a calibrated noise multiplier; epsilon is never above its target."""

_ADD_OR_REMOVE = "add or remove one client"
_REPLACE = "replace one client"
ZERO_OUT = "zero out one client"


@dataclass(frozen=True)
class PrivacyCost:
    """Privacy cost of some rounds of a plan, at the plan's delta."""

    epsilon: float
    """Infinite without noise."""
    accountant: str
    """The library or theorem that epsilon comes from."""
    adjacency: str
    """The neighbouring populations that epsilon compares."""
    sensitivity: float
    """Largest change that one client makes to what the noise is added to, in clip norms."""
    rho: float | None = None
    """rho of zCDP; None if the accountant does not use zCDP."""
    note: str = ""
    slack: float | None = 0.0
    """Largest share by which the sensitivity is above the exact one; None if not known."""


def epsilon(plan: Plan, rounds: int | None = None) -> PrivacyCost:
    """Return the privacy cost of a plan by the tightest accountant that is valid for it.

    It is cheap enough to be called every round: results that do not depend on ``rounds`` are
    cached.

    Args:
        plan: The releases.
        rounds: Number of first rounds to account for, or None for all. With correlated noise their
            cost follows from the participations within them and from the part of the matrix for all
            rounds that they release.

    Raises:
        UserError: The plan's delta is too small, or its participations rule the mechanism out.
    """
    cost = _accountants(plan)[0](plan, plan.rounds if rounds is None else rounds)
    assert cost is not None  # noqa: S101 - the first accountant of each list always works
    return cost


def adjacency(plan: Plan) -> str:
    """Return the neighbouring populations that epsilon of a plan compares."""
    match plan.accounting:
        case Accounting.KEPT_APART:
            return ZERO_OUT
        case Accounting.FIXED_SIZE:
            return _REPLACE
        case _:
            return _ADD_OR_REMOVE


def all_costs(plan: Plan) -> list[PrivacyCost]:
    """Return the privacy cost of a plan by every valid accountant, that of ``epsilon`` first.

    Raises:
        UserError: Same as ``epsilon``.
    """
    costs = (accountant(plan, plan.rounds) for accountant in _accountants(plan))
    return [cost for cost in costs if cost is not None]


def calibrated(plan: Plan, target_epsilon: float) -> Plan:
    """Return the plan with the smallest noise multiplier that costs no more than the target.

    Args:
        plan: The plan; its noise multiplier is ignored.
        target_epsilon: Target, by the accountant of ``epsilon``.

    Raises:
        UserError: Same as ``epsilon``; or the target is not positive, or no noise reaches it.
    """
    if not 0 < target_epsilon <= LARGEST_TARGET:
        raise UserError(
            f"a target epsilon of {target_epsilon} is not allowed; choose more than 0 and "
            f"at most {LARGEST_TARGET:g}, or a noise multiplier of 0 for no privacy"
        )
    if plan.accounting is Accounting.KEPT_APART:
        rho = zcdp.rho_of(target_epsilon, plan.delta)
        # Slightly more noise, so that rounding cannot put epsilon above the target.
        needed = _sensitivity(plan, plan.rounds) / math.sqrt(2 * rho) * (1 + 1e-9)
        return replace(plan, noise_multiplier=max(needed, LEAST_NOISE_MULTIPLIER))

    return replace(plan, noise_multiplier=_least_noise(plan, target_epsilon))


def correlated_cost(plan: Plan, sensitivity: float) -> PrivacyCost:
    """Return the cost of a mechanism's whole release as one Gaussian mechanism (arXiv 2211.06530).

    Args:
        plan: Provides the noise multiplier and delta.
        sensitivity: Largest norm of ``C X`` for one client of the plan, per unit of clip norm.
    """
    rho = _rho(plan, sensitivity)
    return PrivacyCost(
        zcdp.epsilon_of(rho, plan.delta),
        "zCDP, exact for a Gaussian",
        ZERO_OUT,
        sensitivity,
        rho,
        f"at most {plan.most_participations} participations of a client, "
        f"at least {plan.min_separation} rounds apart",
    )


def noise_on_mean(plan: Plan) -> float:
    """Return the noise's standard deviation on the average update, per unit of clip norm.

    With correlated noise it is the root mean square over the rounds.
    """
    return plan.noise_multiplier / plan.expected_cohort * _mean_row_norm(_without_noise(plan))


def accounted_plan(experiment: Experiment, training_clients: int) -> Plan:
    """Return the plan that an experiment is accounted for.

    ``privacy.population`` and ``privacy.cohort_size`` replace the simulated ones; see
    ``simulated_noise_multiplier``. A target epsilon is converted to a noise multiplier.

    Args:
        experiment: An experiment with a mechanism.
        training_clients: Number of training clients in the corpus.

    Raises:
        UserError: No accounting is valid for the experiment.
    """
    privacy, server = experiment.privacy, experiment.server
    population = privacy.population or training_clients
    cohort_size = privacy.cohort_size or server.cohort_size
    if server.cohort_cap is not None and cohort_size > server.cohort_cap:
        raise UserError(
            f"server.cohort_cap = {server.cohort_cap} is less than the accounted cohort of "
            f"{cohort_size}; leave the cap out or choose a larger one"
        )
    plan = Plan(
        mechanism=privacy.mechanism,
        sampling=server.sampling,
        population=population,
        cohort_size=cohort_size,
        rounds=server.rounds,
        noise_multiplier=privacy.noise_multiplier or 0.0,
        delta=privacy.delta or usual_delta(population),
        cohort_cap=server.cohort_cap,
        min_separation=server.min_separation or 1,
        groups=server.groups or 1,
        bands=privacy.bands,
        buffers=privacy.buffers,
        objective=privacy.objective,
        restart_every=privacy.restart_every,
        momentum=server.momentum if server.optimizer == "sgdm" else 0.0,
        schedule=server.learning_rate_schedule,
    )
    return plan if privacy.target_epsilon is None else calibrated(plan, privacy.target_epsilon)


def simulated_noise_multiplier(simulated: Plan, plan: Plan) -> float:
    """Return the noise multiplier to simulate with, which keeps the accounted noise on the mean.

    A simulated cohort is often smaller than the accounted one. On the mean of a cohort, the noise
    has standard deviation ``noise multiplier * clip norm / expected cohort size``.

    Args:
        simulated: The plan of the simulated population and cohorts.
        plan: The accounted plan.
    """
    return plan.noise_multiplier * simulated.expected_cohort / plan.expected_cohort


_Accountant = Callable[[Plan, int], PrivacyCost | None]


def _accountants(plan: Plan) -> tuple[_Accountant, ...]:
    """Return the accountants valid for a plan, tightest first. The first always has a result."""
    match plan.accounting:
        case Accounting.KEPT_APART:
            return _by_zcdp, _by_rdp_of_zcdp
        case Accounting.FIXED_SIZE if plan.delta < sampled_accounting.least_delta(plan.rounds):
            return (_by_replacing,)
        case Accounting.FIXED_SIZE:
            return _by_losses_of_replacing, _by_replacing
        case Accounting.ALLOCATED:
            return _by_allocation, _by_known_allocation
        case Accounting.TAKING_TURNS:
            return tuple(map(_of_one_group, _of_poisson(group_plan(plan))))
        case Accounting.INCLUDED_BY_CHANCE:
            return _of_poisson(plan)


def _of_poisson(plan: Plan) -> "tuple[_Accountant, ...]":
    """Return the accountants of Poisson sampling."""
    if plan.sampling_rate == 1:
        return _by_gaussian, _by_rdp
    if plan.cohort_cap is not None:
        return (_by_losses,)
    return _by_losses, _by_prv, _by_rdp


def _by_gaussian(plan: Plan, rounds: int) -> PrivacyCost:
    """Return the cost of rounds with every client, which are one Gaussian mechanism together."""
    rho = _rho(plan, math.sqrt(rounds))
    value, name = zcdp.epsilon_of(rho, plan.delta), "zCDP, exact for a Gaussian"
    return PrivacyCost(value, name, _ADD_OR_REMOVE, 1.0, rho, "every client is in every round")


def _by_losses(plan: Plan, rounds: int) -> PrivacyCost:
    value = _sampled(sampled_accounting.pld_epsilon, plan, rounds)
    note = "" if plan.cohort_cap is None else f"Poisson sampling truncated at {plan.cohort_cap}"
    return PrivacyCost(value, "PLD", _ADD_OR_REMOVE, sensitivity=1.0, note=note)


def _by_prv(plan: Plan, rounds: int) -> PrivacyCost | None:
    if rounds == 0 or plan.noise_multiplier < LEAST_NOISE_MULTIPLIER:
        return None
    value = sampled_accounting.prv_epsilon(plan, rounds)
    if value is None:
        return None
    return PrivacyCost(value, "PRV", _ADD_OR_REMOVE, sensitivity=1.0, note="within .01 from above")


def _by_rdp(plan: Plan, rounds: int) -> PrivacyCost:
    value = _sampled(sampled_accounting.poisson_rdp_epsilon, plan, rounds)
    return PrivacyCost(value, "RDP", _ADD_OR_REMOVE, sensitivity=1.0, note="loose")


def _by_allocation(plan: Plan, rounds: int) -> PrivacyCost:
    value = _sampled(allocated_epsilon, plan, rounds)
    note = f"{plan.passes_within(rounds)} passes of {plan.rounds_per_pass} rounds"
    return PrivacyCost(
        value, "PLD of random allocation", _ADD_OR_REMOVE, sensitivity=1.0, note=note
    )


def _by_known_allocation(plan: Plan, rounds: int) -> PrivacyCost:
    known = _by_gaussian(plan, plan.passes_within(rounds))
    return replace(known, note="loose: as if the rounds of clients were known")


def _of_one_group(accountant: "_Accountant") -> "_Accountant":
    """Return an accountant of groups that take turns, given one of Poisson sampling.

    A client's turns are those of its group. Noise of at most as many bands as there are groups is
    never shared by two of its turns, so each is a Poisson-sampled Gaussian mechanism of sensitivity
    1 (arXiv 2306.08153, theorem 4).
    """

    def cost(plan: Plan, rounds: int) -> PrivacyCost | None:
        found = accountant(group_plan(plan), plan.turns_within(rounds))
        if found is None:
            return None
        turns = f"{plan.turns_within(rounds)} turns of a client"
        return replace(found, note=f"{turns}; {found.note}" if found.note else turns)

    return cost


def group_plan(plan: Plan) -> Plan:
    """Return Poisson sampling, with the rate in a group, of the rounds that draw from one group."""
    return replace(
        plan,
        mechanism="gaussian",
        sampling="poisson",
        cohort_size=plan.groups * plan.cohort_size,
        rounds=plan.turns_within(plan.rounds),
        groups=1,
        bands=None,
        momentum=0.0,
        schedule=Schedule(),
    )


def _by_losses_of_replacing(plan: Plan, rounds: int) -> PrivacyCost:
    value = _sampled(sampled_accounting.fixed_size_pld_epsilon, plan, rounds)
    note = "replacing a client moves the sum by twice the clip norm"
    return PrivacyCost(value, "PLD, half the multiplier", _REPLACE, sensitivity=2.0, note=note)


def _by_replacing(plan: Plan, rounds: int) -> PrivacyCost:
    value = _sampled(sampled_accounting.fixed_size_rdp_epsilon, plan, rounds)
    return PrivacyCost(value, "RDP, half the multiplier", _REPLACE, sensitivity=2.0, note="loose")


def _by_zcdp(plan: Plan, rounds: int) -> PrivacyCost:
    cost = correlated_cost(plan, _sensitivity(plan, rounds))
    return replace(cost, slack=_mechanism(plan).slack)


def _by_rdp_of_zcdp(plan: Plan, rounds: int) -> PrivacyCost:
    exact = _by_zcdp(plan, rounds)
    value = exact.epsilon
    if exact.rho and value < math.inf:
        value = sampled_accounting.zcdp_rdp_epsilon(exact.rho, plan.delta)
    return replace(exact, epsilon=value, accountant="RDP of the zCDP", note="loose")


def _sampled(cost: Callable[[Plan, int], float], plan: Plan, rounds: int) -> float:
    if rounds == 0:
        return 0.0
    return math.inf if plan.noise_multiplier < LEAST_NOISE_MULTIPLIER else cost(plan, rounds)


def _rho(plan: Plan, sensitivity: float) -> float:
    if sensitivity == 0:
        return 0.0
    if plan.noise_multiplier < LEAST_NOISE_MULTIPLIER:
        return math.inf
    return (sensitivity / plan.noise_multiplier) ** 2 / 2


def _sensitivity(plan: Plan, rounds: int) -> float:
    return _mechanism(plan).sensitivity_after(rounds) if rounds else 0.0


def _mechanism(plan: Plan) -> Mechanism:
    return _built(_without_noise(plan))


def _without_noise(plan: Plan) -> Plan:
    # A mechanism is the same for all noise multipliers and deltas, and can take a second to build.
    return replace(plan, noise_multiplier=1.0, delta=0.5)


@lru_cache(maxsize=8)
def _mean_row_norm(plan: Plan) -> float:
    norms = _built(plan).row_norms(plan.rounds)
    return math.sqrt(float((norms**2).mean()))


@lru_cache(maxsize=8)
def _built(plan: Plan) -> Mechanism:
    return build_mechanism(plan)


def _least_noise(plan: Plan, target_epsilon: float) -> float:
    """Return the smallest sufficient noise multiplier, to within the tolerance."""

    def excess(log_noise: float) -> float:
        value = epsilon(replace(plan, noise_multiplier=math.exp(log_noise))).epsilon
        # Clamped, because zero and infinity have no logarithm to interpolate.
        return math.log(min(max(value, 1e-300), 1e300) / target_epsilon)

    step = math.log(4)
    low, high = -step, 0.0
    while excess(high) > 0:
        if high > _LARGEST_LOG_NOISE:
            raise UserError(
                f"no noise multiplier gives epsilon = {target_epsilon} at delta = {plan.delta}; "
                "choose a larger epsilon or delta"
            )
        low, high = high, high + step
    while excess(low) <= 0:
        low, high = low - step, low
    found = float(optimize.brentq(excess, low, high, xtol=_CALIBRATION_TOLERANCE / 2))
    while excess(found) > 0:
        found += _CALIBRATION_TOLERANCE / 2
    return math.exp(found)
