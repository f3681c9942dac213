"""Adaptive clipping: a clip norm that follows a quantile of the clients' update norms.

Source: Andrew et al., arXiv 1905.03871.
"""

import math

from fedsi.errors import UserError

LEARNING_RATE = 0.2
"""eta_C of the paper, the geometric learning rate of the clip norm."""


def count_noise(cohort_size: float) -> float:
    """Return sigma_b, the standard deviation of the noise on the number of unclipped clients."""
    return cohort_size / 20


def update_noise_multiplier(noise_multiplier: float, cohort_size: float) -> float:
    """Return the noise multiplier of the updates when part of the budget is spent on the counts.

    Theorem 1: noise of ``z_D = (z^-2 - (2 sigma_b)^-2)^(-1/2)`` clip norms on the sum, together
    with noise of ``sigma_b`` on the count, is as private as noise of z clip norms on the sum alone.

    Raises:
        UserError: The counts alone would use the whole budget.
    """
    if noise_multiplier == 0:
        return 0.0
    left = noise_multiplier**-2 - (2 * count_noise(cohort_size)) ** -2
    if left <= 0:
        raise UserError(
            f"privacy.clipping=adaptive cannot keep a noise multiplier of {noise_multiplier:g} "
            f"with a cohort of {cohort_size:g}: it must be below a tenth of the cohort; choose a "
            "larger cohort or privacy.clipping=flat"
        )
    return 1.0 / math.sqrt(left)


def next_clip_norm(
    clip_norm: float, unclipped: int, clients: int, cohort_size: int, quantile: float, noise: float
) -> float:
    """Return the clip norm of the next round.

    Args:
        clip_norm: C, the clip norm of this round.
        unclipped: Number of clients whose norm was at most C.
        clients: Number of clients in the sum.
        cohort_size: m, the expected number of clients.
        quantile: gamma, the share of clients to leave unclipped.
        noise: A sample of the normal distribution with deviation ``count_noise(cohort_size)``.
    """
    share = 0.5 + (unclipped - 0.5 * clients + noise) / cohort_size
    return clip_norm * math.exp(-LEARNING_RATE * (min(max(share, 0.0), 1.0) - quantile))
