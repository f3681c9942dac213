"""Whether clients took part as their accounting takes for granted.

Correlated noise is accounted for clients that take part at most so many times, and far enough
apart. Two conventions count how far, and differ by one: of two rounds x < y in which a client takes
part, ``y - x`` rounds lead from one to the other, and ``y - x - 1`` rounds lie between them. Here,
in ``Plan.min_separation`` and in ``server.min_separation`` it is always ``y - x``.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedsi.plan import Plan


@dataclass(frozen=True)
class Participations:
    """What is known of each client's participations; the arrays are changed in place."""

    last_round: NDArray[np.int32]
    """The last round in which a client took part, 0 for never: ``[population]``."""
    times: NDArray[np.int32]
    """In how many rounds a client took part: ``[population]``."""
    closest: NDArray[np.int32] = field(default_factory=lambda: np.zeros(1, np.int32))
    """Fewest rounds from one participation of any client to its next, 0 before: ``[1]``."""

    def copy(self) -> "Participations":
        """Return the same in other memory."""
        return Participations(self.last_round.copy(), self.times.copy(), self.closest.copy())


def none_yet(population: int) -> Participations:
    """Return the participations of clients before the first round."""
    return Participations(np.zeros(population, np.int32), np.zeros(population, np.int32))


def record(
    past: Participations, plan: Plan, round_number: int, cohort: NDArray[np.int64]
) -> str | None:
    """Add a round's cohort to ``past``, or say how it breaks the plan and add nothing.

    With shuffled passes the plan's separation must hold, and the participations that the rounds so
    far are priced by. With the other samplings only that nobody is in a cohort twice.

    Args:
        past: The rounds before.
        plan: What is accounted for.
        round_number: From 1; later than the rounds before.
        cohort: Client indices, ``[clients]``.

    Returns:
        One sentence on the first client that breaks the plan; None if there is none.
    """
    clients, repeats = np.unique(cohort, return_counts=True)
    if (repeats > 1).any():
        return f"client {clients[repeats > 1][0]} is in the cohort of round {round_number} twice"
    if plan.sampling == "shuffled":
        broken = _too_close(past, plan, round_number, clients) or _too_many(
            past, plan, round_number, clients
        )
        if broken:
            return broken
    _add(past, round_number, clients)
    return None


def counted(past: Participations, round_number: int, cohort: NDArray[np.int64]) -> Participations:
    """Return the participations with those of a round's cohort, held to no plan.

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
