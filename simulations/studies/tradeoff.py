"""The trade-off of utility against privacy: architectures over levels of noise and seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedsi.errors import UserError
from fedsi.experiment import Experiment, Scalar
from server.privacy import privacy_of
from server.runs.summary import PrivacySummary
from simulations.studies.grid import ACCURACY, Axis, Setting, Study, Trial

EPSILON = Axis("target_epsilon", "epsilon")
"""Levels are what the whole run may cost; infinite is without noise."""
NOISE = Axis("noise_multiplier", "noise")
"""Levels are noise multipliers of the accounted cohort; 0 is without noise."""

_NOISE_KEYS = ("privacy.noise_multiplier", "privacy.target_epsilon")


@dataclass(frozen=True)
class Level:
    """An amount of noise, and what all rounds cost with it."""

    epsilon: float
    """Infinite without noise."""
    noise_multiplier: float
    """Of the accounted cohort."""
    noise_on_mean: float
    """Standard deviation of the noise on the mean update at the experiment's clip norm."""


@dataclass(frozen=True)
class Tradeoff(Study):
    """All results of a grid whose values are levels of noise."""

    levels: Sequence[Level]
    """Of the values, in their order."""

    @property
    def privacy(self) -> PrivacySummary:
        """What the first run claims, for what is the same in all."""
        if self.summary.privacy is None:
            raise ValueError("the runs of a trade-off have privacy, and this one has none")
        return self.summary.privacy

    def at_level(self, place: int) -> list[Setting]:
        """Return each architecture's setting at a level, counted from 0."""
        return [self.setting(name, self.values[place]) for name in self.architectures]

    def to_json(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold; an infinite epsilon is null."""
        column = self.results[0].trial.axis.column
        shared = ("corpus", "corpus_sha256", "unigram_loss")
        claim = ("delta", "accountant", "adjacency", "mechanism", "sampling", "population")
        cohorts = ("cohort_size", "simulated_cohort_size", "extrapolated", "clipping")
        return {
            **{key: getattr(self.summary, key) for key in shared},
            **{key: getattr(self.privacy, key) for key in claim + cohorts},
            "levels": [self._level_json(place) for place in range(len(self.values))],
            "runs": [{column: _finite(r.trial.value), **r.summary.to_json()} for r in self.results],
        }

    def _level_json(self, place: int) -> dict[str, Any]:
        level = {key: _finite(value) for key, value in asdict(self.levels[place]).items()}
        utility = {
            setting.architecture: {
                **setting.to_json(),
                f"heldout_{ACCURACY}": setting.mean(ACCURACY) if setting.measured else None,
            }
            for setting in self.at_level(place)
        }
        return {**level, "architectures": utility}


def without_noise(base: Experiment, changes: Mapping[str, Scalar]) -> Experiment:
    """Return the experiment with changes, clipped but without noise; each level adds its own.

    Raises:
        UserError: It has no privacy, a change sets the noise, or a budget would cut runs short.
    """
    for key in _NOISE_KEYS:
        if key in changes:
            raise UserError(
                f"{key} is what a trade-off varies; name its levels with --noise-multipliers or "
                "--target-epsilons"
            )
    if changes.get("privacy.mechanism", base.privacy.mechanism) == "none":
        raise UserError(
            "a trade-off needs an experiment with privacy, and this one has "
            "privacy.mechanism=none; set for example --set privacy.mechanism=gaussian "
            "--set server.sampling=poisson --set server.averaging=uniform"
        )
    experiment = base.updated({**changes, **_noise_of(NOISE, 0.0)})
    if experiment.privacy.epsilon_budget is not None:
        raise UserError(
            "privacy.epsilon_budget would end the runs of a trade-off after different numbers of "
            "rounds; leave it out"
        )
    return experiment


def with_noise(base: Experiment, axis: Axis, value: float) -> Experiment:
    """Return the base experiment at a level.

    Raises:
        UserError: A level that is not allowed.
    """
    return base.updated(_noise_of(axis, value))


def experiment_of(base: Experiment, trial: Trial) -> Experiment:
    """Return the base experiment with a trial's values.

    Raises:
        UserError: An architecture or a level that is not allowed.
    """
    changes = {"model.architecture": trial.architecture, "seed": trial.seed}
    return with_noise(base.updated(changes), trial.axis, trial.value)


def level_of(experiment: Experiment, training_clients: int) -> Level:
    """Return what a run costs, before it runs.

    Raises:
        UserError: No noise reaches its target, or its numbers have no accounting.
    """
    private = privacy_of(experiment, training_clients)
    if private is None:
        raise ValueError("an experiment without privacy has no level")
    rounds = experiment.server.rounds
    return Level(
        private.price(rounds).epsilon,
        private.plan.noise_multiplier,
        private.noise_on_mean(rounds) * experiment.privacy.clip_norm,
    )


def _noise_of(axis: Axis, value: float) -> dict[str, Scalar]:
    """Return the keys of a level; an infinite epsilon is a noise multiplier of 0."""
    multiplier, target = _NOISE_KEYS
    if axis == EPSILON and value != math.inf:
        return {multiplier: "none", target: value}
    return {multiplier: 0.0 if axis == EPSILON else value, target: "none"}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
