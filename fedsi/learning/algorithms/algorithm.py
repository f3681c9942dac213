"""The interface of an algorithm: three functions, and the vectors that they exchange.

A client trains by SGD from the global parameters; ``pull`` may add a gradient of its own to every
step. When the client has trained, ``finish`` says what it contributes. The contributions of a
cohort are averaged, and ``combine`` makes the round's update of them, which the server optimizer
then applies. An entry ends its module: ``ALGORITHM = Algorithm(...)``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from fedsi.experiment.algorithm import AlgorithmSettings

Vector = NDArray[np.float32]
"""``[parameters]``."""
Vectors = Mapping[str, Vector]

UPDATE = "update"
"""Name of the mean update among the means that ``combine`` is given."""


@dataclass(frozen=True)
class Pull:
    """A gradient that is added to that of every step: ``strength * theta + vector``.

    Like weight decay it is outside the clipping of a step's gradient.
    """

    strength: float = 0.0
    vector: Vector | None = None
    """None for zeros."""

    @property
    def adds_nothing(self) -> bool:
        """Whether steps are those of plain SGD."""
        return self.strength == 0.0 and self.vector is None


NO_PULL = Pull()


@dataclass(frozen=True)
class Given:
    """What a client begins a round with. Nothing of it may be changed."""

    start: Vector
    """The global parameters."""
    sent: Vectors = field(default_factory=dict)
    """The server's vectors ``Algorithm.sent``."""


@dataclass(frozen=True)
class LocalRun:
    """One client's training in one round. Nothing of it may be changed."""

    trained: Vector
    """The client's parameters; another client's after ``finish`` has returned."""
    steps: int
    """SGD steps taken; a client without examples takes none."""
    learning_rate: float


@dataclass(frozen=True)
class Contribution:
    """What a client contributes to the round."""

    update: Vector | None = None
    """None for ``trained - start``, which is then added up in one pass over memory."""
    returned: Vectors = field(default_factory=dict)
    """The vectors ``Algorithm.returned``, averaged with the weights of the updates."""


@dataclass(frozen=True)
class Cohort:
    """A round's cohort as the server sees it."""

    round_number: int
    """From 1."""
    clients: int
    """Clients whose contributions are in the means; in a private run the expected number."""
    population: int
    """All training clients."""


def _nothing(_: "Experiment") -> None:
    """Refuse nothing."""


@dataclass(frozen=True)
class Algorithm:
    """An entry of the table.

    The functions are pure: nothing is remembered but the vectors that they are given back.

    For privacy of clients only the update counts, whatever ``finish`` makes it: it is clipped after
    that, so the sensitivity of the sum is the clip norm. Vectors that are returned beside it have
    no noise, so an algorithm that has any is refused with a mechanism. DP-SGD on devices goes with
    every algorithm: what its functions see of a client's data are steps that have their noise.
    """

    pull: "Callable[[AlgorithmSettings, Given], Pull]"
    """Returns the gradient that is added to a client's every step."""
    finish: "Callable[[AlgorithmSettings, Given, LocalRun], Contribution]"
    """Returns what a client contributes."""
    combine: "Callable[[AlgorithmSettings, Vectors, Vectors, Cohort], tuple[Vector, Vectors]]"
    """``combine(settings, state, means, cohort)`` returns the round's update, and the server's
    vectors of the next round. The means are that of the updates, ``UPDATE``, and one of each vector
    that is returned; all are zeros if nobody contributed."""
    keys: frozenset[str] = frozenset()
    """The keys ``algorithm.*`` that it uses, besides ``name``."""
    sent: tuple[str, ...] = ()
    """Names of the server's vectors, which every client is sent; zeros before the first round."""
    returned: tuple[str, ...] = ()
    """Names of the vectors that a client returns beside its update."""
    check: "Callable[[Experiment], None]" = _nothing
    """Raises ``ValueError`` for an experiment that it has no meaning with."""
