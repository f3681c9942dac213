"""Records of participations, and the check that they satisfy the accounted plan.

Correlated noise is accounted for clients that take part a limited number of times, far enough
apart. Two conventions for the distance of two participations in rounds x < y differ by one: ``y -
x``, or the ``y - x - 1`` rounds in between. Here, in ``Plan.min_separation`` and in
``server.min_separation`` it is always ``y - x``.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedsi.plan import Plan


@dataclass(frozen=True)
class Participations:
    """The participations of all clients so far. The arrays are updated in place."""

    last_round: NDArray[np.int32]
    """The last round in which each client took part, 0 for never: ``[population]``."""
    times: NDArray[np.int32]
    """The number of rounds in which each client took part: ``[population]``."""
    closest: NDArray[np.int32] = field(default_factory=lambda: np.zeros(1, np.int32))
    """Smallest distance between two participations of any client, 0 if there are none: ``[1]``."""

    def copy(self) -> "Participations":
        """Return a deep copy."""
        return Participations(self.last_round.copy(), self.times.copy(), self.closest.copy())


def none_yet(population: int) -> Participations:
    """Return the participations of clients before the first round."""
    return Participations(np.zeros(population, np.int32), np.zeros(population, np.int32))


def record(
    past: Participations, plan: Plan, round_number: int, cohort: NDArray[np.int64]
) -> str | None:
    """Add a round's cohort to ``past``; if it violates the plan, add nothing and say how.

    With shuffled passes the cohort must satisfy the plan's separation and the number of
    participations that the rounds so far are accounted for; with allocated passes a client takes
    part once in a pass, and with cyclic groups in the rounds of one group. With other samplings
    only repeated clients are a violation.

    Args:
        past: The rounds before.
        plan: The accounted plan.
        round_number: From 1; later than the rounds before.
        cohort: Client indices, ``[clients]``.

    Returns:
        One sentence on the first client that violates the plan, or None.
    """
    clients, repeats = np.unique(cohort, return_counts=True)
    if (repeats > 1).any():
        return f"client {clients[repeats > 1][0]} is in the cohort of round {round_number} twice"
    broken = None
    if plan.sampling == "shuffled":
        broken = _too_close(past, plan, round_number, clients)
    elif plan.sampling == "allocated":
        broken = _twice_in_a_pass(past, plan, round_number, clients)
    elif plan.sampling == "cyclic":
        broken = _in_two_groups(past, plan, round_number, clients)
    if plan.bounds_participations:
        broken = broken or _too_many(past, plan, round_number, clients)
    if broken:
        return broken
    _add(past, round_number, clients)
    return None


def counted(past: Participations, round_number: int, cohort: NDArray[np.int64]) -> Participations:
    """Return the participations with a round's cohort added, without checking a plan.

    Args:
        past: The rounds before.
        round_number: From 1; later than the rounds before.
        cohort: Distinct client indices, ``[clients]``.
    """
    after = past.copy()
    _add(after, round_number, cohort)
    return after


def _add(past: Participations, round_number: int, clients: NDArray[np.int64]) -> None:
    gaps = (round_number - past.last_round[clients])[past.last_round[clients] > 0]
    if len(gaps):
        past.closest[0] = min(gaps.min(), past.closest[0] or round_number)
    past.last_round[clients] = round_number
    past.times[clients] += 1


def _too_close(
    past: Participations, plan: Plan, round_number: int, clients: NDArray[np.int64]
) -> str | None:
    last = past.last_round[clients]
    close = (last > 0) & (round_number - last < plan.min_separation)
    if not close.any():
        return None
    return (
        f"client {clients[close][0]} takes part in rounds {last[close][0]} and {round_number}, "
        f"{round_number - last[close][0]} rounds apart, but the accounting counts on at least "
        f"{plan.min_separation}"
    )


def _twice_in_a_pass(
    past: Participations, plan: Plan, round_number: int, clients: NDArray[np.int64]
) -> str | None:
    last = past.last_round[clients]
    began = (round_number - 1) // plan.rounds_per_pass * plan.rounds_per_pass + 1
    twice = last >= began
    if not twice.any():
        return None
    return (
        f"client {clients[twice][0]} takes part in rounds {last[twice][0]} and {round_number}, but "
        f"the accounting counts on one round in each pass of {plan.rounds_per_pass}"
    )


def _in_two_groups(
    past: Participations, plan: Plan, round_number: int, clients: NDArray[np.int64]
) -> str | None:
    last = past.last_round[clients]
    wrong = (last > 0) & ((round_number - last) % plan.groups > 0)
    if not wrong.any():
        return None
    return (
        f"client {clients[wrong][0]} takes part in rounds {last[wrong][0]} and {round_number}, but "
        f"the accounting counts on distances of a multiple of {plan.groups} rounds"
    )


def _too_many(
    past: Participations, plan: Plan, round_number: int, clients: NDArray[np.int64]
) -> str | None:
    most = plan.participations_within(round_number)
    many = past.times[clients] >= most
    if not many.any():
        return None
    return (
        f"client {clients[many][0]} takes part {past.times[clients[many][0]] + 1} times in "
        f"{round_number} rounds, but the accounting counts on at most {most}"
    )
