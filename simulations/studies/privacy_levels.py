"""Levels of noise: the axis of a trade-off, and each level's privacy cost, known in advance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsi.errors import UserError
from fedsi.experiment import Experiment, Scalar
from server.differential_privacy import privacy_of
from simulations.studies.axes import Axis

EPSILON, NOISE = "target_epsilon", "noise_multiplier"
"""Names of the two axes: epsilon of the whole run, infinite without noise; and noise multipliers of
the accounted cohort, 0 without noise."""
NOISE_KEYS = ("privacy.noise_multiplier", "privacy.target_epsilon")
"""The keys that such an axis sets."""


@dataclass(frozen=True)
class Level:
    """A level of noise, and the privacy cost of all rounds with it."""

    epsilon: float
    """Infinite without noise."""
    noise_multiplier: float
    """Noise multiplier of the accounted cohort."""
    noise_on_mean: float
    """Standard deviation of the noise on the mean update at the experiment's clip norm."""


def noise_axis(name: str, values: Sequence[float]) -> Axis:
    """Return an axis of noise levels.

    Args:
        name: ``EPSILON`` or ``NOISE``.
        values: The levels, least noise first.
    """
    multiplier, target = NOISE_KEYS
    label = "epsilon" if name == EPSILON else "noise"

    def changes(value: float) -> dict[str, Scalar]:
        if name == EPSILON and value != math.inf:
            return {multiplier: "none", target: value}
        return {multiplier: 0.0 if name == EPSILON else value, target: "none"}

    return Axis(name=name, values=tuple(values), changes=tuple(map(changes, values)), label=label)


def without_noise(base: Experiment, changes: Mapping[str, Scalar]) -> Experiment:
    """Return the experiment with changes, clipped but without noise; each level adds its own.

    Raises:
        UserError: It has no privacy, a change sets the noise, or a budget would end runs early.
    """
    for key in NOISE_KEYS:
        if key in changes:
            raise UserError(
                f"{key} is varied by a trade-off; name its levels with --noise-multipliers or "
                "--target-epsilons"
            )
    if changes.get("privacy.mechanism", base.privacy.mechanism) == "none":
        raise UserError(
            "a trade-off needs an experiment with privacy, and this one has "
            "privacy.mechanism=none; set for example --set privacy.mechanism=gaussian "
            "--set server.sampling=poisson --set server.averaging=uniform"
        )
    none: dict[str, Scalar] = dict(zip(NOISE_KEYS, (0.0, "none"), strict=True))
    experiment = base.updated({**changes, **none})
    if experiment.privacy.epsilon_budget is not None:
        raise UserError(
            "privacy.epsilon_budget would end the runs of a trade-off after different numbers of "
            "rounds; leave it out"
        )
    return experiment


def level_of(experiment: Experiment, training_clients: int) -> Level:
    """Return the level of a run, before it runs.

    Raises:
        UserError: No noise reaches its target, or its numbers have no accounting.
    """
    private = privacy_of(experiment, training_clients)
    if private is None:
        raise ValueError("an experiment without privacy has no level")
    rounds = experiment.server.rounds
    return Level(
        private.cost(rounds).epsilon,
        private.plan.noise_multiplier,
        private.noise_on_mean(rounds) * experiment.privacy.clip_norm,
    )
