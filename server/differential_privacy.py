"""Privacy on the server: noise on each sum, adaptive clip norms, and the privacy spent.

Noise is scaled by a fixed denominator, the expected cohort size, whatever the number of clients
that took part. A client that fails or is refused changes neither.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsi.errors import UnfinishedError, UserError
from fedsi.experiment import Experiment
from fedsi.limits import FRACTION_BITS, largest_contribution
from fedsi.messages import Outcome
from fedsi.plan import Plan
from fedsi.privacy.adaptive_clipping import count_noise, next_clip_norm, update_noise_multiplier
from fedsi.privacy.canaries import scores
from fedsi.privacy.mechanisms.kind import Accounting
from fedsi.privacy.mechanisms.table import MECHANISMS
from fedsi.privacy.noise_streams import noise_key, normal_for_count, round_key, standard_normal
from fedsi.privacy.participation import Participations, none_yet, record
from fedsi.sums.fixed_point import decode
from server.aggregation import Aggregate
from server.cohorts.canaries import with_canaries

if TYPE_CHECKING:
    from fedsi.privacy.accounting import PrivacyCost
    from fedsi.privacy.mechanisms.mechanism import Mechanism

# The libraries for accounting and mechanisms take a second to import, so they are imported only
# where they are used.

PrivacyState = dict[str, NDArray[Any]]
"""The clip norm, ``[1]``; for an audit, the canaries' scores in each release, in clip norms,
``[rounds, canaries]``, both float32; if their rounds are no secret, whether it was each canary's
turn, as booleans of that shape; and the mechanism's state, in float64 for secure noise."""

Update = NDArray[np.float32]
CLIP_NORM, SCORES, TURNS = "clip_norm", "scores", "turns"


class ParticipationError(UnfinishedError):
    """Clients would take part more often, or closer together, than epsilon assumes."""


@dataclass(frozen=True)
class Privacy:
    """The privacy of a run, derived from its experiment and population."""

    experiment: Experiment
    plan: Plan
    """The accounted plan."""
    noise_multiplier: float
    """Standard deviation of the noise on a simulated sum of updates, relative to the clip norm."""
    mechanism: "Mechanism"
    noise_key: bytes
    """Key of the seeded noise: a hash of the settings and the population, 32 bytes."""
    simulated: Plan
    """The plan that the simulated participations must satisfy: ``plan`` or, in an extrapolation,
    its counterpart for the simulated population and cohorts."""

    def no_participations(self) -> Participations:
        """Return the participations before the first round."""
        return none_yet(self.simulated.population)

    def admitted(
        self, past: Participations, round_number: int, cohort: NDArray[np.int64]
    ) -> Participations:
        """Return the participations with a round's cohort added.

        Raises:
            ParticipationError: They violate the accounted plan; nothing of the round is released.
        """
        after = past.copy()
        broken = record(after, self.simulated, round_number, cohort)
        if broken:
            raise ParticipationError(
                f"round {round_number} was not run, because epsilon would not hold: {broken}; the "
                f"rounds before it keep theirs"
            )
        return after

    def likelihood(self, participations: Participations | None, rounds: int) -> float:
        """Return the probability that clients take part at least this often at the accounted rate.

        It is 1 in passes, where ``admitted`` checks each participation.
        """
        from fedsi.privacy.audit import chance_of_participations  # noqa: PLC0415

        if participations is None or self.plan.bounds_participations:
            return 1.0
        turns = self.simulated.turns_within(rounds)
        return chance_of_participations(participations.times, turns, self.simulated.sampling_rate)

    def initial_state(self, size: int) -> PrivacyState:
        """Return the state before the first round."""
        norm = np.array([self.experiment.privacy.clip_norm], np.float32)
        shape = self.experiment.server.rounds, self.experiment.privacy.canaries
        audited: PrivacyState = {}
        if self.experiment.privacy.canaries:
            audited[SCORES] = np.zeros(shape, np.float32)
            if self.plan.accounting is Accounting.KEPT_APART:
                audited[TURNS] = np.zeros(shape, np.bool_)
        memory = self.mechanism.initial_state(size)
        if self.experiment.privacy.secure_noise:
            # Integers in units of 2^-36 need noise with finer steps than float32 has.
            memory = {name: array.astype(np.float64) for name, array in memory.items()}
        return {CLIP_NORM: norm, **audited, **memory}

    def cost(self, rounds: int) -> "PrivacyCost":
        """Return the privacy cost of the first rounds together."""
        from fedsi.privacy.accounting import epsilon  # noqa: PLC0415

        return epsilon(self.plan, rounds)

    def noise_on_mean(self, rounds: int) -> float:
        """Return the noise's standard deviation on a simulated mean, per unit of clip norm.

        It is the root mean square over the first rounds, because correlated noise differs between
        rounds.
        """
        norms = self.mechanism.row_norms(rounds)
        deviation = self.noise_multiplier / self.simulated.expected_cohort
        return deviation * math.sqrt(float((norms**2).mean()))

    def affordable_rounds(self) -> int:
        """Return the number of rounds that the budget allows.

        Raises:
            UserError: The budget does not allow a single round.
        """
        rounds, budget = self.experiment.server.rounds, self.experiment.privacy.epsilon_budget
        if budget is None or self.cost(rounds).epsilon <= budget:
            return rounds
        enough, most = 0, rounds
        while most - enough > 1:
            middle = (enough + most) // 2
            if self.cost(middle).epsilon <= budget:
                enough = middle
            else:
                most = middle
        if not enough:
            raise UserError(
                f"privacy.epsilon_budget = {budget:g} is less than the first round costs "
                f"({self.cost(1).epsilon:.3g}); raise it or privacy.noise_multiplier"
            )
        return enough

    def release(
        self,
        state: PrivacyState,
        aggregate: Aggregate,
        round_number: int,
        participations: Participations | None = None,
    ) -> tuple[Update, PrivacyState]:
        """Return a round's noisy mean, the only information about its clients that is released.

        Args:
            state: State after the round before.
            aggregate: The exact sum of clipped updates.
            round_number: The round, from 1.
            participations: The participations up to this round; they are only kept for an audit.
        """
        state = {name: array.copy() for name, array in state.items()}
        clip_norm = clip_norm_of(state)
        seeded = self.noise_multiplier and not self.experiment.privacy.secure_noise
        key = round_key(self.noise_key, aggregate.sums) if seeded else b""
        total = self._noisy_total(state, aggregate.sums, clip_norm, round_number, key)
        if SCORES in state:
            released = (total / clip_norm).astype(np.float32)
            seed, canaries = self.experiment.seed, self.experiment.privacy.canaries
            state[SCORES][round_number - 1] = scores(seed, canaries, released)
            if TURNS in state and participations:
                last = participations.last_round[-canaries:]
                state[TURNS][round_number - 1] = last == round_number
        if self.experiment.privacy.clipping == "adaptive":
            state[CLIP_NORM][0] = self._next_clip_norm(clip_norm, aggregate, round_number, key)
        mean = total / self.simulated.expected_cohort
        return mean.astype(np.float32), state

    def _noisy_total(
        self,
        state: PrivacyState,
        sums: NDArray[np.int64],
        clip_norm: float,
        round_number: int,
        key: bytes,
    ) -> NDArray[np.float64]:
        scale = self.noise_multiplier * clip_norm
        if not scale:
            return decode(sums)
        if self.experiment.privacy.secure_noise:
            return decode(sums + self._secure_noise(state, len(sums), scale, round_number))
        fresh = partial(standard_normal, key, round_number, len(sums))
        noise = self.mechanism.noise(state, round_number, fresh)
        return decode(sums) + scale * noise.astype(np.float64)

    def _secure_noise(
        self, state: PrivacyState, size: int, scale: float, round_number: int
    ) -> NDArray[np.int64]:
        """Return noise in fixed point from the operating system's entropy.

        Correlated noise is continuous and then rounded. Because sums are integers, rounding the
        noise is the same as rounding the noisy sum, which costs no privacy. Unlike for independent
        noise, it is not proven that the lowest bits of the normal numbers are exact.
        """
        from fedsi.privacy.mechanisms import secure_noise  # noqa: PLC0415

        grid = scale * 2.0**FRACTION_BITS
        if MECHANISMS[self.plan.mechanism].is_independent:
            return secure_noise.discrete_gaussian(grid, size)

        def fresh(_: int) -> NDArray[np.float64]:
            return secure_noise.secure_normal(size)

        noise = self.mechanism.noise(state, round_number, fresh)
        return np.rint(grid * noise).astype(np.int64)

    def _next_clip_norm(
        self, clip_norm: float, aggregate: Aggregate, round_number: int, key: bytes
    ) -> float:
        server, privacy = self.experiment.server, self.experiment.privacy
        clients = int((aggregate.column("outcome") == Outcome.AGGREGATED).sum())
        unclipped = clients - int(aggregate.total().clipped)
        return min(
            next_clip_norm(
                clip_norm,
                unclipped,
                clients,
                server.cohort_size,
                privacy.clip_quantile,
                self._noise_on_count(round_number, unclipped, clients, key),
            ),
            largest_contribution(server.largest_cohort + privacy.canaries),
        )

    def _noise_on_count(self, round_number: int, unclipped: int, clients: int, key: bytes) -> float:
        if not self.noise_multiplier:
            return 0.0
        scale = count_noise(self.experiment.server.cohort_size)
        if self.experiment.privacy.secure_noise:
            from fedsi.privacy.mechanisms.secure_noise import discrete_gaussian  # noqa: PLC0415

            grid = 2.0**FRACTION_BITS
            return float(discrete_gaussian(scale * grid, 1)[0]) / grid
        return scale * normal_for_count(key, round_number, unclipped, clients)


def privacy_of(
    experiment: Experiment, training_clients: int, content_digest: str = ""
) -> Privacy | None:
    """Return a run's privacy, or None for a run without privacy.

    Args:
        experiment: The configuration.
        training_clients: Number of training clients.
        content_digest: The population's content digest; may be omitted if nothing is released.

    Raises:
        UserError: No noise reaches the target, the numbers are impossible, or the budget is less
            than the cost of the first round.
    """
    if experiment.privacy.mechanism == "none":
        return None
    from fedsi.privacy.accounting import (  # noqa: PLC0415
        accounted_plan,
        simulated_noise_multiplier,
    )
    from fedsi.privacy.mechanisms.table import build_mechanism  # noqa: PLC0415

    settings = experiment.privacy
    if settings.canaries and (settings.population or settings.cohort_size):
        raise UserError(
            "privacy.canaries cannot audit an extrapolation, because the simulated noise is not "
            "that of the accounted cohort; leave privacy.population and privacy.cohort_size out"
        )
    if settings.canaries and experiment.devices.trace:
        raise UserError(
            "privacy.canaries are in no trace and would never take part; leave devices.trace out"
        )
    clients = with_canaries(experiment, training_clients)
    plan = accounted_plan(experiment, clients)
    simulated = replace(plan, population=clients, cohort_size=experiment.server.cohort_size)
    multiplier = simulated_noise_multiplier(simulated, plan)
    if experiment.privacy.clipping == "adaptive":
        share = experiment.server.cohort_size / plan.cohort_size
        multiplier = share * update_noise_multiplier(plan.noise_multiplier, plan.cohort_size)
    key = noise_key(experiment, content_digest)
    private = Privacy(experiment, plan, multiplier, build_mechanism(plan), key, simulated)
    # Plans that cannot be accounted for, or not paid for even once, are refused before training.
    private.cost(1)
    private.affordable_rounds()
    _check_secure_noise(private)
    return private


def _check_secure_noise(private: Privacy) -> None:
    """Refuse noise that the integer sampler cannot draw."""
    settings = private.experiment.privacy
    deviation = private.noise_multiplier * settings.clip_norm
    if not settings.secure_noise or not deviation:
        return
    from fedsi.privacy.mechanisms.secure_noise import LARGEST_SIGMA, SMALLEST_SIGMA  # noqa: PLC0415

    least, most = (sigma / 2.0**FRACTION_BITS for sigma in (SMALLEST_SIGMA, LARGEST_SIGMA))
    if not least <= deviation <= most:
        raise UserError(
            f"privacy.secure_noise draws noise of a standard deviation between {least:.2g} and "
            f"{most:g}, not of {deviation:.3g} (noise multiplier times privacy.clip_norm); change "
            "one of the two or set privacy.secure_noise=false"
        )


def clip_norm_of(state: PrivacyState) -> float:
    """Return the clip norm of the next round; infinite for a run without privacy."""
    return float(state[CLIP_NORM][0]) if CLIP_NORM in state else math.inf
