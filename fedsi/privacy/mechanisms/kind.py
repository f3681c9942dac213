"""The entry of a mechanism in the table: how it is built and how it may be accounted for.

Samplings are an allow-list. A pairing that a mechanism does not list is refused, because noise of
unknown properties must not be accounted for as if it were another mechanism's.
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
    "correlated noise can only be accounted for if a client's participations are kept apart; use "
    "server.sampling=shuffled with server.min_separation, or privacy.mechanism=gaussian"
)
"""The reason why correlated noise requires shuffled passes."""


class Accounting(Enum):
    """Methods of accounting for the rounds of a run; see ``fedsi.privacy.accounting``."""

    INCLUDED_BY_CHANCE = auto()
    """Independent Gaussian noise; each client is included in a round independently of the
    others."""
    FIXED_SIZE = auto()
    """Independent Gaussian noise; cohorts of fixed size, uniform without replacement."""
    ALLOCATED = auto()
    """Independent Gaussian noise; each client is in one round of a pass, drawn independently of the
    others."""
    TAKING_TURNS = auto()
    """Noise correlated over fewer rounds than there are groups of clients; each round includes
    clients of one group by chance."""
    KEPT_APART = auto()
    """One release of ``C X + Z`` for all rounds; a client's participations are kept apart."""


def _nothing(_: "Experiment") -> int:
    return 0


@dataclass(frozen=True)
class Kind:
    """An entry of the table of mechanisms."""

    build: "Callable[[Plan], Mechanism]"
    """Returns the mechanism of a plan, or raises ``UserError`` if the plan's numbers rule it
    out."""
    samplings: Mapping[str, Accounting]
    """The accounting of this noise for each valid ``server.sampling``, the usual one first. Other
    samplings are refused."""
    otherwise: str
    """The reason for refusing other samplings, and what to use instead."""
    keys: frozenset[str] = frozenset()
    """The keys among ``OWN_KEYS`` (fedsi.experiment.privacy) that it uses."""
    is_optimised: bool = False
    """Whether it is optimised for the server's momentum and learning rate schedule."""
    vectors: "Callable[[Experiment], int]" = _nothing
    """Returns the number of vectors of the model's size that it keeps between rounds."""

    @property
    def is_independent(self) -> bool:
        """Whether each round's noise is Gaussian and independent of that of other rounds."""
        return Accounting.KEPT_APART not in self.samplings.values()
