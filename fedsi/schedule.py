"""The schedule of a learning rate, the server's or the clients', as a function of the round."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEDULES = ("constant", "warm_up", "cosine", "cooldown")

COOLDOWN_SHARE = 0.25
"""Share of the rounds, at the end, over which a cooldown falls."""


@dataclass(frozen=True)
class Schedule:
    """The factor of the learning rate in each round.

    It rises linearly over the warm-up and is 1 in its last round. ``cosine`` then falls along half
    a cosine over all remaining rounds, ``cooldown`` linearly over the last ``COOLDOWN_SHARE`` of
    all rounds. Both reach ``final_fraction`` in the last round.
    """

    kind: str = "constant"
    """One of ``SCHEDULES``."""
    warm_up_rounds: int = 0
    final_fraction: float = 0.0

    def factor(self, round_number: int, rounds: int) -> float:
        """Return the factor of one round, from 1."""
        if round_number <= self.warm_up_rounds:
            return round_number / self.warm_up_rounds
        lowest = self.final_fraction
        if self.kind == "cosine":
            most = max(1, rounds - self.warm_up_rounds - 1)
            fallen = (round_number - self.warm_up_rounds - 1) / most
            return lowest + (1 - lowest) * (1 + math.cos(math.pi * fallen)) / 2
        if self.kind == "cooldown":
            last = cooldown_rounds(rounds)
            return 1 - (1 - lowest) * max(0, round_number - (rounds - last)) / last
        return 1.0

    def factors(self, rounds: int) -> "NDArray[np.float64]":
        """Return the factors of all rounds, ``[rounds]``."""
        import numpy as np  # noqa: PLC0415 - what only names the schedules need not wait for it

        return np.array([self.factor(number, rounds) for number in range(1, rounds + 1)])

    def least_rounds(self, rounds: int) -> int:
        """Return the fewest rounds that hold the warm-up and what must follow it."""
        after = {"cosine": 1, "cooldown": cooldown_rounds(rounds)}
        return self.warm_up_rounds + after.get(self.kind, 0)


def cooldown_rounds(rounds: int) -> int:
    """Return the number of rounds over which a cooldown falls."""
    return math.ceil(COOLDOWN_SHARE * rounds)
