"""Privacy cost of a study: several private runs on the same clients, of which some are chosen."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedsi.experiment import Experiment
from fedsi.plan import Plan
from fedsi.privacy.accounting import LEAST_NOISE_MULTIPLIER, accounted_plan
from fedsi.privacy.selection import JointCost, RandomSelection, joint_cost, random_selection
from server.cohorts.canaries import with_canaries

SENTENCES = (
    "choices look at held-out sentences of the training clients themselves, which no noise covers; "
    "hold out clients with data.heldout_by=clients"
)
NO_NOISE = "some of the runs add no noise"
DIFFERENT = (
    "runs of one seed differ in how their cohorts are drawn, which then depend on each other; give "
    "them different seeds or privacy.secure_noise=true"
)
LITTLE_NOISE = "their noise is too little for a finite epsilon"
SMALL_DELTA = (
    "delta is below what float64 can bound for so many rounds together; set a larger privacy.delta"
)


@dataclass(frozen=True)
class StudyPrivacy:
    """What all runs of a study cost their common clients together."""

    runs: int
    """Runs with noise and without, finished or not, of all seeds and settings together."""
    without_noise: int
    """Runs without privacy or without noise, whose results nothing bounds."""
    epsilon: float | None
    """Epsilon of everything that the runs with noise release, by composition; None if no bound
    holds."""
    delta: float
    adjacency: str
    shared_cohorts: bool
    """Whether the runs of a seed have the same cohorts."""
    reason: str
    """The reason why no bound covers all of the study; empty if one does."""
    random: RandomSelection | None
    """The bound that would hold if the number of runs had been random; None if none is known."""


def study_privacy(experiments: Sequence[Experiment], training_clients: int) -> StudyPrivacy | None:
    """Return the privacy cost of some experiments on the same clients.

    Args:
        experiments: The experiments of all runs.
        training_clients: Number of training clients.

    Returns:
        None if there is only one experiment, or no noise at all.
    """
    seeds: dict[int, list[Plan]] = defaultdict(list)
    known: dict[tuple[object, ...], Plan] = {}
    for number, experiment in enumerate(experiments):
        plan = _plan(experiment, training_clients, known)
        if plan is not None and plan.noise_multiplier > 0:
            own = experiment.privacy.secure_noise
            seeds[-1 - number if own else experiment.seed].append(plan)
    plans = [plan for group in seeds.values() for plan in group]
    if len(experiments) < 2 or not plans:
        return None
    cost = joint_cost(list(seeds.values()))
    without = len(experiments) - len(plans)
    reason = _reason(experiments, plans, cost)
    alike = len(set(plans)) == 1 and not without and not reason
    return StudyPrivacy(
        runs=len(experiments),
        without_noise=without,
        epsilon=None if cost is None or reason else cost.epsilon,
        delta=min(plan.delta for plan in plans),
        adjacency="" if cost is None else cost.adjacency,
        shared_cohorts=any(len(group) > 1 for group in seeds.values()),
        reason=reason or (NO_NOISE if without else ""),
        random=random_selection(plans[0], len(plans)) if alike else None,
    )


def _reason(
    experiments: Sequence[Experiment], plans: Sequence[Plan], cost: JointCost | None
) -> str:
    """Return why no bound holds even for the runs with noise; empty if one does."""
    if any(e.data.heldout_by == "sentences" and e.data.heldout_split is None for e in experiments):
        return SENTENCES
    if cost is None:
        return DIFFERENT
    if math.isfinite(cost.epsilon):
        return ""
    little = any(plan.noise_multiplier < LEAST_NOISE_MULTIPLIER for plan in plans)
    return LITTLE_NOISE if little else SMALL_DELTA


def _plan(
    experiment: Experiment, training_clients: int, known: dict[tuple[object, ...], Plan]
) -> Plan | None:
    """Return an experiment's plan; ``known`` spares calibrating equal plans again."""
    privacy = experiment.privacy
    if privacy.mechanism == "none":
        return None
    clients = with_canaries(experiment, training_clients)
    uncalibrated = experiment.updated(
        {
            "privacy.target_epsilon": None,
            "privacy.noise_multiplier": privacy.noise_multiplier or 0.0,
        }
    )
    plan = accounted_plan(uncalibrated, clients)
    if privacy.target_epsilon is None:
        return plan
    key = (replace(plan, noise_multiplier=0.0), privacy.target_epsilon)
    if key not in known:
        known[key] = accounted_plan(experiment, clients)
    return known[key]
