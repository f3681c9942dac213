"""The norm bound: an update with a larger L2 norm is scaled down to it, or refused.

Sun, Kairouz, Suresh and McMahan, "Can You Really Backdoor Federated Learning?" (arXiv 1911.07963),
norm thresholding. It limits what one client can do to a round; without noise it is no mechanism of
differential privacy.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsi.experiment import ServerSettings
from fedsi.learning.algorithms.algorithm import Contribution
from fedsi.sums.clipping import squared_norm


@dataclass(frozen=True)
class Bounded:
    """A contribution within the bound."""

    contribution: Contribution
    norm: float
    """Norm of the update as it was; not finite if the update is not."""
    refused: bool
    """Whether it was beyond the bound and is not to be added."""
    clipped: bool


def within_bound(
    settings: ServerSettings,
    start: NDArray[np.float32],
    trained: NDArray[np.float32],
    contribution: Contribution,
) -> Bounded:
    """Return a contribution within ``server.norm_bound``, up to the rounding of float32.

    Args:
        settings: They have a bound.
        start: The global parameters, ``[parameters]``.
        trained: The client's parameters, of which the update is made if the contribution has none.
        contribution: The client's contribution.
    """
    bound = settings.norm_bound
    assert bound is not None, "there is no bound"  # noqa: S101
    if contribution.update is not None:
        start, trained = np.zeros_like(start), contribution.update
    norm = math.sqrt(squared_norm(start, trained))
    if norm <= bound or not math.isfinite(norm):  # what is not finite is refused later
        return Bounded(contribution, norm, refused=False, clipped=False)
    if settings.beyond_norm_bound == "reject":
        return Bounded(contribution, norm, refused=True, clipped=False)
    update = (trained - start) * np.float32(bound / norm)
    return Bounded(replace(contribution, update=update), norm, refused=False, clipped=True)
