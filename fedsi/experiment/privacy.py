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
MASKING = ("secure_aggregation", "mask_neighbours")
"""Keys that have an effect without a mechanism too."""
OF_SOME = "used by some mechanisms only"
"""Marks a key that mechanisms have to list if they use it."""


class PrivacySettings(Settings):
    """Differential privacy of clients: updates are clipped, and noise is added to their sum."""

    mechanism: Annotated[Name, EntryOf(MECHANISMS, besides=("none",))] = "none"
    """Noise: none, independent each round (``gaussian``), or correlated over rounds."""
    clipping: Literal["flat", "per_layer", "adaptive"] = "flat"
    """Clipping of the whole update to ``clip_norm`` (``flat``); of each of L parameters to
    ``clip_norm / sqrt(L)`` (``per_layer``); or of the whole update to a norm that follows a
    quantile of the clients' norms (``adaptive``)."""
    clip_norm: Annotated[FiniteFloat, Strict(), Field(ge=1e-6)] = 1.0
    """Largest L2 norm of a client's update; with adaptive clipping that of the first round."""
    clip_quantile: Fraction = 0.5
    """Share of clients that adaptive clipping leaves unclipped."""
    noise_multiplier: OptionalNonNegative = None
    """Standard deviation of the noise on the sum relative to the clip norm (before the mechanism
    correlates it over rounds); none if ``target_epsilon`` is given."""
    target_epsilon: OptionalNumber = None
    """Epsilon of all rounds together, from which the noise multiplier is computed."""
    delta: OptionalFraction = None
    """Probability that epsilon does not cover; none for population^-1.1."""
    epsilon_budget: OptionalNumber = None
    """Epsilon that a run must not exceed; it ends before the round that would. None for no
    budget."""
    population: OptionalCount = None
    """Accounted number of clients; none for the training clients. A larger one is an
    extrapolation."""
    cohort_size: OptionalCount = None
    """Accounted cohort size; the noise on the mean is kept. None for the simulated one."""
    bands: Annotated[OptionalCount, OF_SOME] = None
    """Bands of the banded mechanism; none for the minimum separation."""
    buffers: Annotated[OptionalCount, OF_SOME] = None
    """Buffers of BLT; none to add buffers while each improves the error by at least 1 %."""
    objective: Annotated[Literal["mean", "last"], OF_SOME] = "mean"
    """Noise that BLT makes least: its mean over the models of all rounds, or that in the last model
    (``last``), for which the mean may rise by 5 %."""
    restart_every: Annotated[OptionalCount, OF_SOME] = None
    """Rounds after which the tree is completed and a new one begins; none for a single tree."""
    secure_noise: Flag = False
    """Whether noise and cohorts come from the operating system's entropy, so that the seed does not
    reveal them. Noise is discrete Gaussian, or correlated and rounded to the integers of the sum.
    Such a run cannot be repeated bit by bit."""
    secure_aggregation: Flag = False
    """Whether clients mask their updates, so that the server only sees sums: a simulation of the
    protocol and its cost (SecAgg+), which works with every mechanism and without one."""
    mask_neighbours: OptionalCount = None
    """Neighbours with whom a client shares masks and secrets, an even number
    (``secure_aggregation``); none for the fewest that are safe if 10 % of the clients collude with
    the server and 20 % drop out."""
    canaries: Annotated[int, Strict(), Field(ge=0, le=10**5)] = 0
    """Clients with random updates added to audit the run's privacy, half of which take part; 0 or
    at least 50."""

    @model_validator(mode="after")
    def _canaries_are_enough(self) -> Self:
        if 0 < self.canaries < FEWEST_CANARIES:
            raise ValueError(
                f"privacy.canaries = {self.canaries} are too few to bound anything; use at least "
                f"{FEWEST_CANARIES}, or 0 for no audit"
            )
        return self

    @model_validator(mode="after")
    def _masks_can_be_made(self) -> Self:
        if self.mask_neighbours is not None and not self.secure_aggregation:
            raise ValueError(
                "privacy.mask_neighbours has no effect with privacy.secure_aggregation=false; set "
                "it to true or leave the neighbours out"
            )
        if self.mask_neighbours is not None and self.mask_neighbours % 2:
            raise ValueError(
                f"privacy.mask_neighbours = {self.mask_neighbours} is odd, and a client has as "
                "many neighbours before it as after it; use an even number"
            )
        if self.secure_aggregation and self.canaries:
            raise ValueError(
                "privacy.canaries are counted apart from clients, and privacy.secure_aggregation "
                "shows only the sum of both; set one of the two"
            )
        return self

    @model_validator(mode="after")
    def _mechanism_has_its_keys(self) -> Self:
        given = [
            name
            for name, field in type(self).model_fields.items()
            if name not in ("mechanism", *MASKING) and getattr(self, name) != field.default
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


OWN_KEYS = tuple(
    key for key, field in PrivacySettings.model_fields.items() if OF_SOME in field.metadata
)
"""Keys used by some mechanisms only, which list them."""
