"""The table of mechanisms. Their modules are imported when used: optimising needs scipy."""

import importlib

from fedsi.plan import Plan
from fedsi.privacy.mechanisms.mechanism import Mechanism

_MODULES = {
    "gaussian": "fedsi.privacy.mechanisms.gaussian",
    "tree": "fedsi.privacy.mechanisms.tree",
    "banded": "fedsi.privacy.mechanisms.banded",
    "blt": "fedsi.privacy.mechanisms.blt",
}


def build(plan: Plan) -> Mechanism:
    """Return the plan's mechanism, optimised for it where it can be.

    Raises:
        UserError: The plan's participations rule the mechanism out.
    """
    mechanism: Mechanism = importlib.import_module(_MODULES[plan.mechanism]).build(plan)
    return mechanism
