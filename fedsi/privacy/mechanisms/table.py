"""The table of mechanisms. Each is a module that ends with its ``KIND``."""

from typing import TYPE_CHECKING

from fedsi.errors import UserError
from fedsi.tables import Table

if TYPE_CHECKING:
    from fedsi.plan import Plan
    from fedsi.privacy.mechanisms.kind import Accounting, Kind
    from fedsi.privacy.mechanisms.mechanism import Mechanism

MECHANISMS: "Table[Kind]" = Table(
    "privacy.mechanism",
    "fedsi.privacy.mechanisms.kind:Kind",
    "KIND",
    {
        "gaussian": "fedsi.privacy.mechanisms.gaussian",
        "tree": "fedsi.privacy.mechanisms.tree",
        "banded": "fedsi.privacy.mechanisms.banded",
        "blt": "fedsi.privacy.mechanisms.blt",
    },
)


def build_mechanism(plan: "Plan") -> "Mechanism":
    """Return the plan's mechanism, optimised for the plan if it can be.

    Raises:
        UserError: The plan's participations rule the mechanism out.
    """
    return MECHANISMS[plan.mechanism].build(plan)


def accounting_of(mechanism: str, sampling: str) -> "Accounting":
    """Return how a mechanism and a sampling are accounted for together.

    Raises:
        UserError: There is no valid accounting; says why, and what to use instead.
    """
    kind = MECHANISMS[mechanism]
    if sampling not in kind.samplings:
        raise UserError(
            f"privacy.mechanism={mechanism} with server.sampling={sampling} has no valid "
            f"accounting: {kind.otherwise}"
        )
    return kind.samplings[sampling]
