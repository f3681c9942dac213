"""What a noise mechanism is: the matrix mechanism, one round at a time.

A mechanism is a lower triangular matrix C ``[rounds, rounds]``: row t of ``C^-1 Z``, with standard
normal Z ``[rounds, size]``, is the noise of round t (arXiv 2211.06530). A release of all rounds is
private as ``C X + Z`` is, where row t of X is the sum of the clipped updates of round t. So all it
costs is one Gaussian mechanism, whose sensitivity is the largest norm of ``C X`` that one client
can cause.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

State = dict[str, NDArray[Any]]
"""What a mechanism remembers between rounds. May be empty; arrays keep their shapes for a run and
have the precision of its noise, float32 or float64."""

Fresh = Callable[[int], NDArray[Any]]
"""``fresh(k)`` is the k-th independent standard normal vector ``[size]`` of a round, k from 0, in
the precision of the state."""


class Mechanism(Protocol):
    """Noise for the sums of a run's rounds."""

    @property
    def sensitivity(self) -> float:
        """Largest norm of ``C X`` for one client with clip norm 1 and the plan's participations.

        1 for independent noise, whose accounting follows from how cohorts are sampled.
        """
        ...

    def sensitivity_after(self, rounds: int) -> float:
        """Return the same of what the first rounds alone release; at least one, at most all.

        They are private as the first rows of ``C X + Z`` are. It never falls with more rounds.
        """
        ...

    def initial_state(self, size: int) -> State:
        """Return the state before the first round, for sums of ``size`` entries."""
        ...

    def noise(self, state: State, round_number: int, fresh: Fresh) -> NDArray[Any]:
        """Return the noise ``[size]`` of a round's sum, in units of z * clip norm.

        Args:
            state: Changed in place.
            round_number: From 1. Rounds are asked for in order, each once.
            fresh: This round's independent noise. What it returns is not changed.
        """
        ...

    def row_norms(self, rounds: int) -> NDArray[np.float64]:
        """Return the standard deviation of an entry of each round's noise, ``[rounds]``.

        The norms of the rows of C^-1. ``rounds`` is at most that of the plan.
        """
        ...
