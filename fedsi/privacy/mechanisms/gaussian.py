"""Independent noise: C is the identity."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.plan import Plan
from fedsi.privacy.mechanisms.kind import Accounting, Kind
from fedsi.privacy.mechanisms.mechanism import Fresh, NoiseState


@dataclass(frozen=True)
class Gaussian:
    """Independent noise each round; see ``Mechanism``."""

    sensitivity: float = 1.0
    slack: float = 0.0

    def sensitivity_after(self, rounds: int) -> float:  # noqa: ARG002
        """Return 1."""
        return 1.0

    def initial_state(self, size: int) -> NoiseState:  # noqa: ARG002
        """Return no arrays."""
        return {}

    def noise(self, state: NoiseState, round_number: int, fresh: Fresh) -> NDArray[Any]:  # noqa: ARG002
        """Return the round's first independent vector."""
        return fresh(0)

    def row_norms(self, rounds: int) -> NDArray[np.float64]:
        """Return ones."""
        return np.ones(rounds)


def build(plan: Plan) -> Gaussian:  # noqa: ARG001
    """Return the mechanism, which is the same for every plan."""
    return Gaussian()


KIND = Kind(
    build,
    samplings={
        "poisson": Accounting.INCLUDED_BY_CHANCE,
        "allocated": Accounting.ALLOCATED,
        "cyclic": Accounting.TAKING_TURNS,
        "uniform": Accounting.FIXED_SIZE,
    },
    otherwise="cohorts of fixed size cut from a shuffled pass reveal when it is a client's turn, "
    "so sampling amplifies nothing; use server.sampling=allocated, whose clients draw their rounds "
    "independently, or privacy.mechanism=banded with privacy.bands=1",
)
