"""The keys ``privacy.*``: differential privacy of a client."""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, Strict, model_validator

from fedsi.experiment.field_types import (
    EntryOf,
    Flag,
    Fraction,
    Name,
    OptionalCount,
    OptionalFraction,
    OptionalNonNegative,
    OptionalNumber,
    Settings,
)
from fedsi.privacy.mechanisms.table import MECHANISMS
from fedsi.tables import without_effect

FEWEST_CANARIES = 50
OWN_KEYS = ("bands", "buffers", "restart_every")
"""Keys that only some mechanisms have; which ones, they say themselves."""


class PrivacySettings(Settings):
    """Differential privacy of a client: its update is clipped, noise is added to the sum."""

    mechanism: Annotated[Name, EntryOf(MECHANISMS, besides=("none",))] = "none"
    """How noise is added: not at all, anew each round, or correlated over rounds."""
    clipping: Literal["flat", "per_layer", "adaptive"] = "flat"
    """The whole update to ``clip_norm``; each of L parameters to ``clip_norm / sqrt(L)``; or the
    whole update to a norm that follows a quantile of the clients' norms."""
    clip_norm: Annotated[FiniteFloat, Strict(), Field(ge=1e-6)] = 1.0
    """Largest L2 norm of a client's update; with adaptive clipping that of the first round."""
    clip_quantile: Fraction = 0.5
    """The share of clients that adaptive clipping leaves unclipped."""
    noise_multiplier: OptionalNonNegative = None
    """Standard deviation of the noise on the sum over the clip norm (before the mechanism
    correlates it over rounds); none if ``target_epsilon`` is given."""
    target_epsilon: OptionalNumber = None
    """The epsilon that all rounds may cost; the noise multiplier is computed from it."""
    delta: OptionalFraction = None
    """The probability that epsilon does not cover; none for population^-1.1."""
    epsilon_budget: OptionalNumber = None
    """A run that would exceed it stops before the round that would; none for no budget."""
    population: OptionalCount = None
    """Clients that are accounted for; none for the training clients. More is an extrapolation."""
    cohort_size: OptionalCount = None
    """Cohort that is accounted for, with the noise on the mean kept; none for the simulated one."""
    bands: OptionalCount = None
    """Bands of the banded mechanism; none for the minimum separation."""
    buffers: OptionalCount = None
    """Buffers of BLT; none for as many as gain more than one per cent each."""
    restart_every: OptionalCount = None
    """Rounds after which the tree is completed and a new one begun; none for never."""
    secure_noise: Flag = False
    """Noise and cohorts from the operating system's entropy, so that the seed does not give them
    away; discrete Gaussian noise, or correlated noise rounded to the integers of the sum. Such a
    run cannot be repeated bit by bit."""
    canaries: Annotated[int, Strict(), Field(ge=0, le=10**5)] = 0
    """Clients of random updates that are added to audit the privacy of the run; 0 or at least 50,
    of which half take part."""

    @model_validator(mode="after")
    def _canaries_are_enough(self) -> Self:
        if 0 < self.canaries < FEWEST_CANARIES:
            raise ValueError(
                f"privacy.canaries = {self.canaries} are too few to bound anything; use at least "
                f"{FEWEST_CANARIES}, or 0 for no audit"
            )
        return self

    @model_validator(mode="after")
    def _mechanism_has_its_keys(self) -> Self:
        given = [
            name
            for name, field in type(self).model_fields.items()
            if name != "mechanism" and getattr(self, name) != field.default
        ]
        if self.mechanism == "none" and given:
            raise ValueError(
                without_effect(f"privacy.{given[0]}", "privacy.mechanism", "none", list(MECHANISMS))
            )
        for name in given:
            if name in OWN_KEYS and name not in MECHANISMS[self.mechanism].keys:
                owners = [owner for owner in MECHANISMS if name in MECHANISMS[owner].keys]
                raise ValueError(
                    without_effect(f"privacy.{name}", "privacy.mechanism", self.mechanism, owners)
                )
        return self

    @model_validator(mode="after")
    def _noise_is_described(self) -> Self:
        if self.mechanism == "none":
            return self
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            raise ValueError(
                f"privacy.mechanism={self.mechanism} needs either privacy.noise_multiplier or "
                "privacy.target_epsilon; set one of the two"
            )
        if self.clipping == "adaptive" and not MECHANISMS[self.mechanism].is_independent:
            raise ValueError(
                f"privacy.clipping=adaptive with privacy.mechanism={self.mechanism} has no valid "
                "accounting: noise of earlier rounds is scaled by their clip norms; use "
                "privacy.mechanism=gaussian with server.sampling=poisson, or privacy.clipping=flat"
            )
        return self
