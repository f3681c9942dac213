"""A private run's releases, as data; ``fedsi.privacy.accounting`` computes their privacy cost.

The unit of privacy is one client. Each round, a run releases the sum of clipped updates with noise.
The valid accounting follows from how cohorts are sampled and how noise is made.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from fedsi.errors import UserError
from fedsi.privacy.mechanisms.kind import Accounting
from fedsi.privacy.mechanisms.table import accounting_of
from fedsi.schedule import SCHEDULES, Schedule

LARGEST_NOISE_MULTIPLIER = 1e6
LARGEST_DELTA = 0.5
"""Multiple of 1 / population from which a delta is reported as large."""


Sampling = Literal["uniform", "poisson", "allocated", "cyclic", "shuffled"]
"""Cohort sampling: of fixed size; each client independently in each round (Poisson); each client in
one independently drawn round of every pass (allocated); Poisson from groups that take turns
(cyclic); or in shuffled passes."""
SAMPLINGS: tuple[str, ...] = get_args(Sampling)


def usual_delta(population: int) -> float:
    """Return the default delta, ``population ** -1.1``."""
    return math.pow(population, -1.1)


def large_delta(delta: float, population: int) -> str | None:
    """Return a warning if epsilon at a delta means little, else None.

    A mechanism that publishes one of n clients, chosen at random, is (0, 1/n)-private.
    """
    if delta * population < LARGEST_DELTA:
        return None
    return (
        f"delta = {delta:.3g} is large for {population:,} clients: publishing one of them in full "
        f"would have delta 1/{population} = {1 / population:.3g}, so epsilon promises little; "
        "usual are 1e-5 or less, far below 1/population (privacy.delta)"
    )


def close_participations(mechanism: str, rounds_per_pass: int, rounds: int) -> str | None:
    """Return a warning for a plan that does not keep participations apart, else None.

    Noise that is correlated over rounds is made for the worst participations that are possible.
    Without a minimum separation these are rounds in a row, where the end of a pass meets the
    beginning of the next; over 800 rounds in passes of 153, BLT's error of the model is then 1.8
    times that of participations 150 rounds apart (``fedsi.privacy.alternatives.error``).

    Args:
        mechanism: A name of ``fedsi.privacy.mechanisms.table``, with shuffled cohorts.
        rounds_per_pass: Rounds in which all clients take part once.
        rounds: Rounds of the run.
    """
    if not 1 < rounds_per_pass < rounds:
        return None
    return (
        f"clients may take part in rounds that follow each other, for which {mechanism} makes "
        f"more noise: passes have {rounds_per_pass} rounds, so that server.min_separation can keep "
        f"them up to as many apart, such as {math.ceil(rounds_per_pass / 2)}"
    )


@dataclass(frozen=True)
class Plan:
    """The releases of a run.

    Raises:
        UserError: The mechanism with this sampling has no valid accounting, or a number is
            impossible.
    """

    mechanism: str
    """A name of ``fedsi.privacy.mechanisms.table``."""
    sampling: str
    """One of ``SAMPLINGS``."""
    population: int
    """Number of clients that can take part."""
    cohort_size: int
    """Clients per round; with Poisson sampling their expected number. The sum is divided by it."""
    rounds: int
    noise_multiplier: float
    """z: each round, independent noise of standard deviation z * clip norm enters the mechanism."""
    delta: float
    cohort_cap: int | None = None
    """Largest cohort of Poisson sampling; None for no cap."""
    min_separation: int = 1
    """Smallest y - x for two rounds x < y in which a client takes part (shuffled)."""
    groups: int = 1
    """Groups of clients that take turns; each round draws from one of them (cyclic)."""
    participations: int | None = None
    """Most rounds in which a client takes part (shuffled); None for as many as the passes allow."""
    bands: int | None = None
    """Bands of the banded mechanism; None for the minimum separation (shuffled), or the number of
    groups (cyclic)."""
    buffers: int | None = None
    """Buffers of BLT; None to add buffers while each improves the error by at least 1 %."""
    objective: str = "mean"
    """The error that BLT is optimised for: that of the iterates' mean, or of the last one."""
    restart_every: int | None = None
    """Rounds between restarts of the tree; None for no restarts."""
    momentum: float = 0.0
    """Momentum of the server optimizer, which correlated noise is optimised for."""
    schedule: Schedule = field(default_factory=Schedule)
    """Schedule of the server's learning rate, which correlated noise is optimised for."""

    def __post_init__(self) -> None:
        accounting_of(self.mechanism, self.sampling)
        self._check_numbers()
        self._check_cohorts()

    def _check_numbers(self) -> None:
        if not 0 <= self.noise_multiplier <= LARGEST_NOISE_MULTIPLIER:
            raise UserError(
                f"a noise multiplier of {self.noise_multiplier} is not allowed; choose 0 or more "
                f"and at most {LARGEST_NOISE_MULTIPLIER:g}"
            )
        if not 0 < self.delta < 1:
            raise UserError(
                f"delta = {self.delta} is not allowed; choose a probability between 0 and 1"
            )
        if not 0 <= self.momentum < 1:
            raise UserError(
                f"a momentum of {self.momentum} is not allowed; choose at least 0 and less than 1"
            )
        if self.schedule.kind not in SCHEDULES:
            raise UserError(
                f"server.schedule={self.schedule.kind} is none of {', '.join(SCHEDULES)}; choose "
                "one"
            )
        if self.schedule.least_rounds(self.rounds) > self.rounds:
            raise UserError(
                f"a warm-up of {self.schedule.warm_up_rounds} rounds leaves too few of "
                f"{self.rounds} for the schedule {self.schedule.kind}; choose a shorter one"
            )

    def _check_cohorts(self) -> None:
        if self.cohort_size > self.population:
            raise UserError(
                f"a cohort of {self.cohort_size} is more than the population of "
                f"{self.population}; choose a smaller cohort or a larger population"
            )
        if self.cohort_cap is not None and self.sampling != "poisson":
            raise UserError(
                f"a cap of cohorts has no effect with {self.sampling} sampling; leave it out"
            )
        if self.min_separation > 1 and self.sampling != "shuffled":
            raise UserError(
                f"{self.sampling} sampling does not keep a client's participations apart; leave "
                "the minimum separation out, or use shuffled sampling"
            )
        if self.groups > 1 and self.sampling != "cyclic":
            raise UserError(
                f"groups have no effect with {self.sampling} sampling; leave them out, or use "
                "cyclic sampling"
            )
        if self.min_separation > self.rounds_per_pass:
            raise UserError(
                f"a minimum separation of {self.min_separation} is more than the "
                f"{self.rounds_per_pass} rounds in which cohorts of {self.cohort_size} pass over "
                f"{self.population} clients; choose a smaller separation or cohort"
            )
        if self.groups > self.rounds_per_pass:
            raise UserError(
                f"{self.groups} groups of {self.population} clients are too small for cohorts of "
                f"{self.cohort_size}: a group has {self.population // self.groups} on average; "
                "choose fewer groups or a smaller cohort"
            )

    @property
    def accounting(self) -> Accounting:
        """The accounting of the rounds."""
        return accounting_of(self.mechanism, self.sampling)

    @property
    def sampling_rate(self) -> float:
        """q, the probability that a client is in the cohort of a round in which its turn is."""
        return self.groups * self.cohort_size / self.population

    @property
    def rounds_per_pass(self) -> int:
        """Rounds in which shuffled or allocated passes reach every client once."""
        return self.population // self.cohort_size

    @property
    def expected_cohort(self) -> float:
        """Expected number of clients in a cohort, by which the sum of updates is divided."""
        if self.sampling == "allocated":
            return self.population / self.rounds_per_pass
        return float(self.cohort_size)

    def turns_within(self, rounds: int) -> int:
        """Return the largest number of the first rounds that draw from one group (cyclic)."""
        return math.ceil(rounds / self.groups)

    def passes_within(self, rounds: int) -> int:
        """Return the number of passes that the first rounds begin (shuffled, allocated)."""
        return math.ceil(rounds / self.rounds_per_pass)

    @property
    def bounds_participations(self) -> bool:
        """Whether passes bound the number of rounds in which a client takes part."""
        return self.sampling in {"shuffled", "allocated"}

    @property
    def most_participations(self) -> int:
        """Most rounds in which a client takes part in passes."""
        return self.participations_within(self.rounds)

    def participations_within(self, rounds: int) -> int:
        """Return the largest number of the first rounds in which a client takes part in passes."""
        by_passes = self.passes_within(rounds)
        by_separation = math.ceil(rounds / self.min_separation)
        return min(self.participations or by_passes, by_separation)
