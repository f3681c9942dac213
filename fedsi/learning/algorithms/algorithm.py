"""The interface of an algorithm: three functions, and the vectors that they exchange.

A client trains from the global parameters; ``pull`` may add a gradient to every step. After
training, ``finish`` returns the client's contribution. The contributions of a cohort are averaged,
and ``combine`` turns them into the round's update, which the server optimizer applies. A module
ends with its entry: ``ALGORITHM = Algorithm(...)``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from fedsi.experiment.algorithm import AlgorithmSettings

Vector = NDArray[np.float32]
"""``[parameters]``."""
Vectors = Mapping[str, Vector]
Updates = NDArray[np.float32]
"""The updates of a round's aggregated clients, in cohort order: ``[clients, parameters]``."""

UPDATE = "update"
"""Name of the mean update among the means passed to ``combine``."""


@dataclass(frozen=True)
class Pull:
    """A gradient added to that of every step: ``strength * theta + vector``.

    Like weight decay, it is not included in the clipping of a step's gradient.
    """

    strength: float = 0.0
    vector: Vector | None = None
    """None for zeros."""

    @property
    def adds_nothing(self) -> bool:
        """Whether the pull is zero."""
        return self.strength == 0.0 and self.vector is None


NO_PULL = Pull()


@dataclass(frozen=True)
class Broadcast:
    """The vectors that a client has at the start of a round. They must not be modified."""

    start: Vector
    """The global parameters."""
    sent: Vectors = field(default_factory=dict)
    """The server's vectors named in ``Algorithm.sent``."""
    kept: Vectors = field(default_factory=dict)
    """The client's own vectors named in ``Algorithm.kept``."""


@dataclass(frozen=True)
class LocalRun:
    """One client's training in one round. It must not be modified."""

    trained: Vector
    """The client's parameters. The memory is reused for the next client after ``finish``
    returns."""
    steps: int
    """Number of steps taken; 0 for a client without examples."""
    learning_rate: float


@dataclass(frozen=True)
class Contribution:
    """A client's contribution to the round."""

    update: Vector | None = None
    """None for ``trained - start``, which is then summed in one pass over memory."""
    returned: Vectors = field(default_factory=dict)
    """The vectors named in ``Algorithm.returned``, averaged with the weights of the updates."""
    kept: Vectors = field(default_factory=dict)
    """The client's new vectors named in ``Algorithm.kept``; they count if it is aggregated."""


@dataclass(frozen=True)
class Cohort:
    """A round's cohort from the server's view."""

    round_number: int
    """The round, from 1."""
    clients: int
    """Number of clients whose contributions are in the means; in a private run its expectation."""
    population: int
    """Number of training clients."""


def _nothing(_: "Experiment") -> None:
    """Refuse nothing."""


@dataclass(frozen=True)
class Algorithm:
    """An entry of the table.

    The functions are pure: the only state is the vectors that they receive and return.

    For privacy of clients only the update counts. It is clipped after ``finish``, so the
    sensitivity of the sum is the clip norm. Other returned vectors get no noise, so an algorithm
    that has any is refused with a mechanism. DP-SGD on clients works with every algorithm, because
    its functions see only a client's noisy steps.
    """

    pull: "Callable[[AlgorithmSettings, Broadcast], Pull]"
    """Returns the gradient that is added to a client's every step."""
    finish: "Callable[[AlgorithmSettings, Broadcast, LocalRun], Contribution]"
    """Returns a client's contribution."""
    combine: "Callable[[AlgorithmSettings, Vectors, Vectors, Cohort], tuple[Vector, Vectors]]"
    """``combine(settings, state, means, cohort)`` returns the round's update, and the server's
    vectors for the next round. The means are that of the updates, ``UPDATE``, and one for each
    returned vector; they are zeros if nobody contributed."""
    aggregate: "Callable[[AlgorithmSettings, Updates], Vector] | None" = None
    """Returns what replaces the mean of the updates, from all of them; at least one. None for the
    weighted mean, for which nodes only return sums. Updates that are not summed get no noise and
    no masks, so with such a function mechanisms and secure aggregation are refused."""
    keys: frozenset[str] = frozenset()
    """The keys ``algorithm.*`` that it uses, apart from ``name``."""
    sent: tuple[str, ...] = ()
    """Names of the server's vectors sent to every client; they are zeros before the first round."""
    returned: tuple[str, ...] = ()
    """Names of the vectors that a client returns besides its update."""
    kept: tuple[str, ...] = ()
    """Names of the vectors that each client keeps between its rounds; zeros before its first."""
    pools: bool = False
    """Whether one learner trains on the pooled examples of the cohort, instead of each client on
    its own. The functions are not called then."""
    imitated: Literal["", "teacher", "cohort"] = ""
    """What the server distils into the global model after the server optimizer's step, on
    ``algorithm.public_corpus``: nothing; the model of ``algorithm.teacher``; or the models of the
    aggregated clients, whose logits it averages. The latter needs ``aggregate``, because nodes only
    then return every update."""
    check: "Callable[[Experiment], None]" = _nothing
    """Raises ``ValueError`` for an experiment with which the algorithm is meaningless."""

    def __post_init__(self) -> None:
        if self.imitated == "cohort" and self.aggregate is None:
            raise ValueError(
                "an algorithm that imitates its cohort needs the function aggregate, because nodes "
                "otherwise return only the sum of the updates"
            )
