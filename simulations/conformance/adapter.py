"""The interface through which a framework is asked: five questions, of which any may be refused."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


class CannotBeAskedError(Exception):
    """The framework has no such part. The message is the reason, in words."""


class RefusedError(Exception):
    """The framework refuses a round instead of releasing something. The message is its reason."""


@dataclass(frozen=True)
class Round:
    """One round of federated averaging with a fixed clip norm and independent noise."""

    updates: Floats
    """Updates of the clients that reported, ``[clients, size]``."""
    examples: Ids
    """Numbers of their examples, ``[clients]``."""
    clip_norm: float
    noise_multiplier: float
    cohort_size: int
    """Planned or expected number of clients, by which the sum is to be divided."""


@dataclass(frozen=True)
class Sampler:
    """A way to draw cohorts."""

    kind: Literal["uniform", "shuffled"]
    """Of fixed size without replacement, or so that a client's participations are apart."""
    population: int
    cohort_size: int
    rounds: int
    min_separation: int = 1
    """Smallest y - x for two rounds x < y in which a client takes part (shuffled)."""


@dataclass(frozen=True)
class Releases:
    """Rounds of a Poisson-sampled Gaussian mechanism, neighbours by adding or removing a client."""

    sampling_rate: float
    """1 for every client in every round."""
    noise_multiplier: float
    rounds: int
    delta: float


class Adapter(Protocol):
    """A framework under test.

    A method raises ``CannotBeAskedError`` if the framework has no such part, and ``release`` raises
    ``RefusedError`` if the framework refuses the round.
    """

    @property
    def name(self) -> str:
        """Name in reports."""
        ...

    def release(self, asked: Round, trials: int) -> Floats:
        """Return the released mean of a round, ``[trials, size]``, each with fresh noise."""
        ...

    def tree_noise(self, rounds: int, size: int) -> Floats:
        """Return noise of tree aggregation with efficient estimates, ``[rounds, size]``.

        It is the noise on the *sum of each round* for noise multiplier and clip norm 1: its prefix
        sums are the noise of the prefix sums. Columns are independent.
        """
        ...

    def cohorts(self, sampler: Sampler) -> list[Ids]:
        """Return the clients of each round, from 0."""
        ...

    def counts(self, unclipped: int, cohort_size: int, trials: int) -> Floats:
        """Return what adaptive clipping learns of the unclipped clients, ``[trials]``.

        It is the number of unclipped clients, of ``cohort_size`` that all report, with the noise of
        arXiv 1905.03871: a standard deviation of a twentieth of the cohort.
        """
        ...

    def epsilon(self, asked: Releases) -> float:
        """Return epsilon."""
        ...
