"""What a plan costs: epsilon at its delta, by the accountants that are valid for it.

What two runs must differ in for their outputs to be told apart (the adjacency) goes by sampling:

| cohorts | noise | accountant | adjacency |
|---|---|---|---|
| Poisson, also with a cap | independent | privacy loss distributions | add or remove one client |
| everyone in every round | independent | zCDP, exact for a Gaussian | add or remove one client |
| fixed size | independent | Renyi divergence, twice the sensitivity | replace one client |
| shuffled passes | correlated | zCDP, exact for a Gaussian | zero out one client |

A client that is zeroed out keeps its turns and contributes zeros; if it were gone, the passes would
be shuffled anew and all others would move. ``Plan`` refuses every other pairing. Nothing here goes
by opacus' GDP accountant: its central limit theorem is an approximation from below.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from scipy import optimize

from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.plan import LARGEST_NOISE_MULTIPLIER, Plan, usual_delta
from fedsi.privacy import sampled, zcdp
from fedsi.privacy.mechanisms.kind import Accounting
from fedsi.privacy.mechanisms.mechanism import Mechanism
from fedsi.privacy.mechanisms.table import build

LEAST_NOISE_MULTIPLIER = 1e-3
"""With less noise epsilon is reported as infinite; it would be in the hundreds of thousands."""

LARGEST_TARGET = 1e3
"""No epsilon beyond it is calibrated to: it promises nothing."""

_LARGEST_LOG_NOISE = math.log(LARGEST_NOISE_MULTIPLIER) - math.log(4)
_CALIBRATION_TOLERANCE = 1e-4
"""Of a calibrated noise multiplier, relative; epsilon is never above its target."""

_ADD_OR_REMOVE = "add or remove one client"
_REPLACE = "replace one client"
_ZERO_OUT = "zero out one client"


@dataclass(frozen=True)
class Price:
    """What rounds of a plan cost at the plan's delta."""

    epsilon: float
    """Infinite without noise."""
    accountant: str
    """Which library or theorem it goes by."""
    adjacency: str
    """What two populations differ in."""
    sensitivity: float
    """The most that one client moves what the noise is added to, in units of the clip norm."""
    rho: float | None = None
    """Of zCDP; None where the accountant has none."""
    note: str = ""


def epsilon(plan: Plan, rounds: int | None = None) -> Price:
    """Price a plan by the tightest accountant that is valid for it.

    Cheap enough to be called every round: what does not depend on ``rounds`` is kept.

    Args:
        plan: What is released.
        rounds: Price the first rounds only; None for all. With correlated noise they are priced by
            their own participations and what they release of the matrix for all rounds.

    Raises:
        UserError: The plan's delta is too small, or its participations rule the mechanism out.
    """
    price = _accountants(plan)[0](plan, plan.rounds if rounds is None else rounds)
    assert price is not None  # noqa: S101 - the first accountant of each list always works
    return price


def all_prices(plan: Plan) -> list[Price]:
    """Price a plan by every accountant that is valid for it, the one of ``epsilon`` first.

    Raises:
        UserError: As ``epsilon``.
    """
    prices = (accountant(plan, plan.rounds) for accountant in _accountants(plan))
    return [price for price in prices if price is not None]


def calibrated(plan: Plan, target_epsilon: float) -> Plan:
    """Return the plan with the smallest noise multiplier that costs no more than the target.

    Args:
        plan: Its own noise multiplier is ignored.
        target_epsilon: By the accountant of ``epsilon``.

    Raises:
        UserError: As ``epsilon``; the target is not positive, or no noise is enough for it.
    """
    if not 0 < target_epsilon <= LARGEST_TARGET:
        raise UserError(
            f"a target epsilon of {target_epsilon} is not allowed; choose more than 0 and "
            f"at most {LARGEST_TARGET:g}, or a noise multiplier of 0 for no privacy"
        )
    if plan.accounting is Accounting.KEPT_APART:
        rho = zcdp.rho_of(target_epsilon, plan.delta)
        # A hair more, so that rounding does not exceed the target.
        needed = _sensitivity(plan, plan.rounds) / math.sqrt(2 * rho) * (1 + 1e-9)
        return replace(plan, noise_multiplier=max(needed, LEAST_NOISE_MULTIPLIER))

    return replace(plan, noise_multiplier=_least_noise(plan, target_epsilon))


def correlated_price(plan: Plan, sensitivity: float) -> Price:
    """Price a mechanism's whole release as one Gaussian mechanism (arXiv 2211.06530).

    Args:
        plan: Gives the noise multiplier and delta.
        sensitivity: Largest norm of ``C X`` for one client of the plan, per unit of clip norm.
    """
    rho = _rho(plan, sensitivity)
    return Price(
        zcdp.epsilon_of(rho, plan.delta),
        "zCDP, exact for a Gaussian",
        _ZERO_OUT,
        sensitivity,
        rho,
        f"at most {plan.most_participations} participations of a client, "
        f"at least {plan.min_separation} rounds apart",
    )


def noise_on_mean(plan: Plan) -> float:
    """Return the noise's standard deviation on the average update, per unit of clip norm.

    With correlated noise the root of the mean square over the rounds.
    """
    return plan.noise_multiplier / plan.cohort_size * _mean_row_norm(_without_noise(plan))


def accounted_plan(experiment: Experiment, training_clients: int) -> Plan:
    """Return the plan that an experiment is accounted for.

    ``privacy.population`` and ``privacy.cohort_size`` take the place of the simulated ones; see
    ``simulated_noise_multiplier``. A target epsilon is turned into a noise multiplier.

    Args:
        experiment: One with a mechanism.
        training_clients: Of the corpus.

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
        bands=privacy.bands,
        buffers=privacy.buffers,
        restart_every=privacy.restart_every,
        momentum=server.momentum if server.optimizer == "sgdm" else 0.0,
        schedule=server.learning_rate_schedule,
    )
    return plan if privacy.target_epsilon is None else calibrated(plan, privacy.target_epsilon)


def simulated_noise_multiplier(experiment: Experiment, plan: Plan) -> float:
    """Return the noise multiplier to simulate with, which keeps the accounted noise on the mean.

    A simulated cohort is often smaller than the one that is accounted for. The mean of either has
    noise of standard deviation noise multiplier * clip norm / cohort.
    """
    return plan.noise_multiplier * experiment.server.cohort_size / plan.cohort_size


_Accountant = Callable[[Plan, int], Price | None]


def _accountants(plan: Plan) -> tuple[_Accountant, ...]:
    """Return what is valid for a plan, the tightest first, which always gives a price."""
    match plan.accounting:
        case Accounting.KEPT_APART:
            return _by_zcdp, _by_rdp_of_zcdp
        case Accounting.FIXED_SIZE:
            return (_by_replacing,)
        case Accounting.INCLUDED_BY_CHANCE if plan.sampling_rate == 1:
            return _by_gaussian, _by_rdp
        case Accounting.INCLUDED_BY_CHANCE if plan.cohort_cap is not None:
            return (_by_losses,)
        case Accounting.INCLUDED_BY_CHANCE:
            return _by_losses, _by_prv, _by_rdp


def _by_gaussian(plan: Plan, rounds: int) -> Price:
    """Price rounds that nobody is left out of: together they are one Gaussian mechanism."""
    rho = _rho(plan, math.sqrt(rounds))
    cost, name = zcdp.epsilon_of(rho, plan.delta), "zCDP, exact for a Gaussian"
    return Price(cost, name, _ADD_OR_REMOVE, 1.0, rho, "every client is in every round")


def _by_losses(plan: Plan, rounds: int) -> Price:
    cost = _sampled(sampled.pld_epsilon, plan, rounds)
    note = "" if plan.cohort_cap is None else f"Poisson sampling cut at {plan.cohort_cap} clients"
    return Price(cost, "PLD", _ADD_OR_REMOVE, sensitivity=1.0, note=note)


def _by_prv(plan: Plan, rounds: int) -> Price | None:
    if rounds == 0 or plan.noise_multiplier < LEAST_NOISE_MULTIPLIER:
        return None
    cost = sampled.prv_epsilon(plan, rounds)
    note = "within .01 from above"
    return None if cost is None else Price(cost, "PRV", _ADD_OR_REMOVE, sensitivity=1.0, note=note)


def _by_rdp(plan: Plan, rounds: int) -> Price:
    cost = _sampled(sampled.poisson_rdp_epsilon, plan, rounds)
    return Price(cost, "RDP", _ADD_OR_REMOVE, sensitivity=1.0, note="loose")


def _by_replacing(plan: Plan, rounds: int) -> Price:
    cost = _sampled(sampled.fixed_size_rdp_epsilon, plan, rounds)
    name = "RDP, replace-one, half the multiplier (loose)"
    note = "replacing a client moves the sum by twice the clip norm"
    return Price(cost, name, _REPLACE, sensitivity=2.0, note=note)


def _by_zcdp(plan: Plan, rounds: int) -> Price:
    return correlated_price(plan, _sensitivity(plan, rounds))


def _by_rdp_of_zcdp(plan: Plan, rounds: int) -> Price:
    exact = _by_zcdp(plan, rounds)
    cost = exact.epsilon
    if exact.rho and cost < math.inf:
        cost = sampled.zcdp_rdp_epsilon(exact.rho, plan.delta)
    return replace(exact, epsilon=cost, accountant="RDP of the zCDP", note="loose")


def _sampled(price: Callable[[Plan, int], float], plan: Plan, rounds: int) -> float:
    if rounds == 0:
        return 0.0
    return math.inf if plan.noise_multiplier < LEAST_NOISE_MULTIPLIER else price(plan, rounds)


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
    # A mechanism is the same for all noise multipliers and deltas, and may take a second to build.
    return replace(plan, noise_multiplier=1.0, delta=0.5)


@lru_cache(maxsize=8)
def _mean_row_norm(plan: Plan) -> float:
    norms = _built(plan).row_norms(plan.rounds)
    return math.sqrt(float((norms**2).mean()))


@lru_cache(maxsize=8)
def _built(plan: Plan) -> Mechanism:
    return build(plan)


def _least_noise(plan: Plan, target_epsilon: float) -> float:
    """Return the least noise multiplier that is enough, to within the tolerance."""

    def excess(log_noise: float) -> float:
        cost = epsilon(replace(plan, noise_multiplier=math.exp(log_noise))).epsilon
        # Free of zeros and infinities, which have no logarithm to interpolate.
        return math.log(min(max(cost, 1e-300), 1e300) / target_epsilon)

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
