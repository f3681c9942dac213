"""The interface of a noise mechanism: a matrix mechanism, one round at a time.

A mechanism is a lower triangular matrix C ``[rounds, rounds]``: the noise of round t is row t of
``C^-1 Z``, with standard normal Z ``[rounds, size]`` (arXiv 2211.06530). Releasing all rounds is as
private as releasing ``C X + Z``, where row t of X is the sum of the clipped updates of round t. So
the whole release is one Gaussian mechanism, whose sensitivity is the largest norm of ``C X`` that
one client can cause.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

NoiseState = dict[str, NDArray[Any]]
"""Arrays that a mechanism keeps between rounds; may be empty. They keep their shapes during a run
and have the precision of its noise, float32 or float64."""

Fresh = Callable[[int], NDArray[Any]]
"""``fresh(k)`` is a round's k-th independent standard normal vector ``[size]``, k from 0, in the
precision of the state."""


class Mechanism(Protocol):
    """Noise for the sums of a run's rounds."""

    @property
    def sensitivity(self) -> float:
        """Largest norm of ``C X`` for one client with clip norm 1 and the plan's participations.

        It is 1 for independent noise, whose accounting follows from the sampling of cohorts.
        """
        ...

    @property
    def slack(self) -> float | None:
        """Largest share by which ``sensitivity`` is above the exact one, 0 if it is exact.

        None if it is a proven upper bound of which only that is known.
        """
        ...

    def sensitivity_after(self, rounds: int) -> float:
        """Return the sensitivity of the first rounds alone; at least one round, at most all.

        They are as private as the first rows of ``C X + Z``. The result never falls with more
        rounds.
        """
        ...

    def initial_state(self, size: int) -> NoiseState:
        """Return the state before the first round, for sums of ``size`` entries."""
        ...

    def noise(self, state: NoiseState, round_number: int, fresh: Fresh) -> NDArray[Any]:
        """Return the noise ``[size]`` of a round's sum, in units of z * clip norm.

        Args:
            state: The state; updated in place.
            round_number: The round, from 1. Rounds are requested in order, each once.
            fresh: This round's independent noise, which is not modified.
        """
        ...

    def row_norms(self, rounds: int) -> NDArray[np.float64]:
        """Return the standard deviation of an entry of each round's noise, ``[rounds]``.

        These are the norms of the rows of C^-1. ``rounds`` is at most that of the plan.
        """
        ...
