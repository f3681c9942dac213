"""What a mechanism says of itself: how it is built, and what may be claimed of its noise.

That is an allow-list. What a mechanism does not say it may be accounted with is refused, because
noise that nothing is known of must not be priced as if it were another's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from fedsi.plan import Plan
    from fedsi.privacy.mechanisms.mechanism import Mechanism

APART = (
    "correlated noise is accounted for clients whose participations are kept apart, which no other "
    "sampling does; use server.sampling=shuffled with server.min_separation, or "
    "privacy.mechanism=gaussian"
)
"""Why correlated noise goes with shuffled passes only."""


class Accounting(Enum):
    """How the rounds of a run are accounted for; ``fedsi.privacy.accounting`` does it."""

    INCLUDED_BY_CHANCE = auto()
    """Independent Gaussian noise; each client is in a round by a coin of its own."""
    FIXED_SIZE = auto()
    """Independent Gaussian noise; cohorts of fixed size, uniform without replacement."""
    KEPT_APART = auto()
    """One release of ``C X + Z`` for all rounds, of clients whose participations are kept apart."""


def _nothing(_: "Experiment") -> int:
    return 0


@dataclass(frozen=True)
class Kind:
    """An entry of the table of mechanisms."""

    build: "Callable[[Plan], Mechanism]"
    """Returns the mechanism of a plan; a ``UserError`` if the plan's numbers rule it out."""
    samplings: Mapping[str, Accounting]
    """How each ``server.sampling`` is accounted for with this noise, the usual one first; samplings
    that are not here are refused."""
    otherwise: str
    """Why those are refused, and what to use instead."""
    keys: frozenset[str] = frozenset()
    """Those of ``OWN_KEYS`` (fedsi.experiment.privacy) that it uses."""
    is_optimised: bool = False
    """Whether it is optimised for the server's momentum and the schedule of its learning rate."""
    vectors: "Callable[[Experiment], int]" = _nothing
    """Returns how many vectors of the model's size it keeps between rounds."""

    @property
    def is_independent(self) -> bool:
        """Whether each round's noise is Gaussian and independent of all others'."""
        return Accounting.KEPT_APART not in self.samplings.values()
