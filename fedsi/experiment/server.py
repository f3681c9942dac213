"""The keys ``server.*``: cohorts, aggregation, server optimizer, evaluation."""

import sys
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, Strict, model_validator

from fedsi.experiment.effects import refuse_unfitting
from fedsi.experiment.field_types import (
    Count,
    EntryOf,
    Name,
    NonNegativeNumber,
    OptionalCount,
    OptionalNumber,
    OptionalSize,
    PositiveNumber,
    Settings,
)
from fedsi.experiment.schedule_checks import ScheduleName, check_rounds, check_schedule
from fedsi.learning.server_optimizers.table import SERVER_OPTIMIZERS, unused_keys
from fedsi.plan import Sampling
from fedsi.schedule import Schedule
from fedsi.tables import refuse_without_effect

MOST_REPEATS = 100
"""Most repeats of a round."""


class ServerSettings(Settings):
    """The round loop: cohorts, aggregation, server optimizer, evaluation."""

    rounds: Annotated[Count, Field(le=10**6)] = 300
    """Number of rounds."""
    cohort_size: Count = 20
    """Clients per round; with Poisson sampling their expected number."""
    sampling: Sampling = "uniform"
    """Sampling of cohorts: of fixed size (``uniform``), each client independently (``poisson``),
    each client in one random round of every pass (``allocated``), independently from groups that
    take turns (``cyclic``), or in shuffled passes (``shuffled``)."""
    cohort_cap: OptionalCount = None
    """Largest cohort of Poisson sampling; larger ones are reduced at random. None for no cap."""
    min_separation: OptionalCount = None
    """Fewest rounds from one participation of a client to the next (shuffled); none for 1."""
    groups: OptionalCount = None
    """Groups of clients that take turns round by round; a client's group is drawn once (cyclic)."""
    averaging: Literal["examples", "uniform"] = "examples"
    """Weights of updates: the clients' numbers of examples, or all equal."""
    norm_bound: OptionalNumber = None
    """Largest L2 norm of a client's update, against poisoned ones; without noise it gives no
    differential privacy. None for no bound."""
    beyond_norm_bound: Literal["clip", "reject"] = "clip"
    """What happens to an update beyond ``norm_bound``: it is scaled down to it, or left out."""
    optimizer: Annotated[Name, EntryOf(SERVER_OPTIMIZERS)] = "adam"
    """Server optimizer, which applies the average update to the global model."""
    learning_rate: PositiveNumber = 0.015
    """Step size of the server optimizer."""
    momentum: Annotated[FiniteFloat, Strict(), Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment (sgdm, adam, yogi only)."""
    second_moment_decay: Annotated[FiniteFloat, Strict(), Field(ge=0, lt=1)] = 0.99
    """Decay of the second moment (adam, yogi only)."""
    adaptivity: PositiveNumber = 1e-5
    """Added to the root of the second moment (adam, adagrad, yogi); tau in the literature."""
    schedule: ScheduleName = "constant"
    """Schedule of the learning rate over the rounds: constant, after a linear warm-up with
    ``warm_up``; falling along half a cosine (``cosine``); or falling linearly over the last quarter
    (``cooldown``)."""
    warm_up_rounds: OptionalCount = None
    """Rounds over which the learning rate rises (warm_up, cosine, cooldown); none for no
    warm-up."""
    final_fraction: Annotated[FiniteFloat, Strict(), Field(ge=0, le=1)] = 0.0
    """Share of the learning rate in the last round (cosine, cooldown)."""
    weight_decay: NonNegativeNumber = 0.0
    """Each round first multiplies the global parameters by 1 - learning_rate * weight_decay, with
    that round's learning rate and any optimizer (decoupled)."""
    evaluate_every: Count = 25
    """Rounds between two evaluations on held-out clients; the last round is always evaluated."""
    evaluation_clients: Count = 200
    """Held-out clients in an evaluation: a sample by hash, always the same one."""
    patience: OptionalCount = None
    """Evaluations in a row without a new lowest held-out loss after which the run ends; none for no
    limit."""
    target_loss: OptionalNumber = None
    """Held-out loss, in nats per target token, at which the run ends; none for no target."""
    budget_tokens: OptionalSize = None
    """Trained target tokens at which the run ends; none for no budget."""
    budget_bytes: OptionalSize = None
    """Bytes to and from the clients at which the run ends; none for no budget."""
    budget_seconds: OptionalNumber = None
    """Seconds of training and evaluation at which the run ends; its bits then depend on the clock.
    None for no budget."""
    round_timeout: Annotated[FiniteFloat, Strict(), Field(gt=0, le=1e6)] = 1800.0
    """Longest wait for a node's reply in seconds. A client at which a node takes longer, or ends,
    is lost, and the others of its block are requested again."""
    minimum_replies: OptionalCount = None
    """Fewest clients of a round whose updates are aggregated, or all of a smaller cohort; with
    fewer the round is repeated. None for one reply of a node."""
    repeats: Annotated[int, Strict(), Field(ge=0, le=MOST_REPEATS)] = 0
    """Most repeats of a round with too few replies, with the same cohort; then the run ends, and
    can be resumed."""

    @property
    def largest_cohort(self) -> int:
        """An upper bound of the number of clients whose updates are summed.

        By Bernstein's inequality a Poisson draw exceeds twice its mean plus 40 with a probability
        below 1e-19. The clients left over by an allocated pass can add half of the mean.
        """
        match self.sampling:
            case "poisson" | "cyclic":
                return min(2 * self.cohort_size + 40, self.cohort_cap or sys.maxsize)
            case "allocated":
                return 3 * self.cohort_size + 40
            case _:
                return self.cohort_size

    @property
    def learning_rate_schedule(self) -> Schedule:
        """The factor of the learning rate in each round."""
        return Schedule(self.schedule, self.warm_up_rounds or 0, self.final_fraction)

    def learning_rate_of(self, round_number: int) -> float:
        """Return the learning rate of a round, from 1."""
        return self.learning_rate * self.learning_rate_schedule.factor(round_number, self.rounds)

    @model_validator(mode="after")
    def _the_optimizer_takes_them(self) -> Self:
        used = type(self).model_fields.keys() - unused_keys(self.optimizer)
        refuse_without_effect(self, "server", used, "optimizer")
        return self

    @model_validator(mode="after")
    def _schedule_has_its_keys(self) -> Self:
        refuse_unfitting(self, "server")
        check_schedule("server", self.schedule, self.warm_up_rounds)
        return self

    @model_validator(mode="after")
    def _learning_rate_fits_the_rounds(self) -> Self:
        check_rounds("server", self.learning_rate_schedule, self.rounds)
        if self.learning_rate * self.weight_decay >= 1:
            raise ValueError(
                f"server.weight_decay = {self.weight_decay} times server.learning_rate = "
                f"{self.learning_rate} leaves nothing of the parameters; their product must be "
                "less than 1"
            )
        return self

    @model_validator(mode="after")
    def _there_is_a_bound(self) -> Self:
        if self.beyond_norm_bound != "clip" and self.norm_bound is None:
            raise ValueError(
                f"server.beyond_norm_bound={self.beyond_norm_bound} has no effect without "
                "server.norm_bound; set a bound or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _a_cohort_is_enough(self) -> Self:
        if self.minimum_replies is not None and self.minimum_replies > self.cohort_size:
            raise ValueError(
                f"server.minimum_replies = {self.minimum_replies} is more than "
                f"server.cohort_size = {self.cohort_size}, so no round would ever be enough; "
                "lower it"
            )
        return self

    @model_validator(mode="after")
    def _sampling_has_its_keys(self) -> Self:
        if self.groups is None and self.sampling == "cyclic":
            raise ValueError(
                "server.sampling=cyclic needs server.groups, the number of groups that take turns; "
                "set it, or use server.sampling=poisson"
            )
        return self
