"""The curve of epsilon over delta that a run claims, for audits that refute any point of it."""

from dataclasses import replace

import numpy as np

from fedsi.plan import Plan
from fedsi.privacy.accounting import epsilon
from fedsi.privacy.audit_bounds import PrivacyCurve

LARGEST_DELTA_OF_CURVE = 0.6
POINTS = 32
"""Points of a curve. Fewer refute less, but never anything that is true."""


def claimed_curve(plan: Plan, rounds: int) -> PrivacyCurve | None:
    """Return what the plan's accountant claims from a large delta down to that of the plan.

    Args:
        plan: The accounted plan.
        rounds: The number of rounds that were run.

    Returns:
        None if epsilon is infinite.
    """
    start = max(LARGEST_DELTA_OF_CURVE, plan.delta)
    deltas = np.geomspace(start, plan.delta, POINTS)
    deltas[-1] = plan.delta
    points = [epsilon(replace(plan, delta=float(delta)), rounds).epsilon for delta in deltas]
    epsilons = np.array(points)
    return PrivacyCurve(epsilons, deltas) if np.isfinite(epsilons).all() else None
