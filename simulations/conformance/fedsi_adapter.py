"""fedsi under its own conformance kit."""

import math

import numpy as np

from fedsi.experiment import Experiment
from fedsi.messages import TRAINING_COLUMNS, Outcome
from fedsi.plan import Plan
from fedsi.privacy.accounting import epsilon as priced
from fedsi.privacy.adaptive_clipping import LEARNING_RATE
from fedsi.privacy.mechanisms.table import build_mechanism
from fedsi.sums.clipping import add_clipped, layer_ends
from server.aggregation import Aggregate
from server.cohorts.availability import available_in
from server.cohorts.sampling import shuffled_cohort, uniform_cohort
from server.differential_privacy import clip_norm_of, privacy_of
from simulations.conformance.adapter import Floats, Ids, Releases, Round, Sampler

SEED = 7
POPULATION = 10


class Fedsi:
    """fedsi's server, from clipped fixed-point sums to noisy means."""

    name = "fedsi"

    def release(self, asked: Round, trials: int) -> Floats:
        """Return what the server releases of the clients' fixed-point sum."""
        size = asked.updates.shape[1]
        sums = np.zeros(size, np.int64)
        start = np.zeros(size, np.float32)
        everything, ends = np.array([[0, size]]), layer_ends([(size,)], "flat")
        for update in asked.updates.astype(np.float32):
            add_clipped(start, update, everything, ends, asked.clip_norm, sums)
        changes = {
            "privacy.clip_norm": asked.clip_norm,
            "privacy.noise_multiplier": asked.noise_multiplier,
            "server.cohort_size": asked.cohort_size,
        }
        private = privacy_of(_private(trials, **changes), POPULATION * asked.cohort_size)
        assert private is not None  # noqa: S101 - it has a mechanism
        state, aggregate = private.initial_state(size), Aggregate(sums, _rows(len(asked.updates)))
        numbers = range(1, trials + 1)
        return np.array([private.release(state, aggregate, n)[0] for n in numbers], np.float64)

    def tree_noise(self, rounds: int, size: int) -> Floats:
        """Return the mechanism's noise from normal numbers of a seed."""
        rng = np.random.default_rng(SEED)
        plan = Plan("tree", "shuffled", rounds, 1, rounds, 1.0, 1e-6)
        mechanism = build_mechanism(plan)
        state = {k: v.astype(np.float64) for k, v in mechanism.initial_state(size).items()}
        numbers = range(1, rounds + 1)
        return np.array(
            [mechanism.noise(state, n, lambda _: rng.normal(size=size)) for n in numbers]
        )

    def cohorts(self, sampler: Sampler) -> list[Ids]:
        """Return the cohorts of fedsi's samplers."""
        population, size = sampler.population, sampler.cohort_size
        numbers = range(1, sampler.rounds + 1)
        if sampler.kind == "shuffled":
            apart = sampler.min_separation
            return [shuffled_cohort(SEED, n, population, size, apart) for n in numbers]
        everyone = available_in(Experiment(), population, None, 1, SEED)
        return [uniform_cohort(SEED, n, everyone, size) for n in numbers]

    def counts(self, unclipped: int, cohort_size: int, trials: int) -> Floats:
        """Return the counts that the next clip norm is made from, which it reveals."""
        changes = {"privacy.clipping": "adaptive", "server.cohort_size": cohort_size}
        experiment = _private(trials, **changes)
        private = privacy_of(experiment, POPULATION * cohort_size)
        assert private is not None  # noqa: S101 - it has a mechanism
        rows = _rows(cohort_size)
        rows[unclipped:, TRAINING_COLUMNS.index("clipped")] = 1.0
        state, aggregate = private.initial_state(1), Aggregate(np.zeros(1, np.int64), rows)
        before, counts = clip_norm_of(state), []
        for number in range(1, trials + 1):
            _, after = private.release(state, aggregate, number)
            moved = math.log(clip_norm_of(after) / before) / LEARNING_RATE
            share = experiment.privacy.clip_quantile - moved
            counts.append(cohort_size * share)
        return np.array(counts)

    def epsilon(self, asked: Releases) -> float:
        """Return the tightest cost."""
        size = round(1000 * asked.sampling_rate)
        plan = Plan(
            "gaussian", "poisson", 1000, size, asked.rounds, asked.noise_multiplier, asked.delta
        )
        return priced(plan).epsilon


def _private(rounds: int, **changes: object) -> Experiment:
    base = {
        "server.rounds": rounds, "server.sampling": "poisson", "server.averaging": "uniform",
        "privacy.mechanism": "gaussian", "privacy.noise_multiplier": 1.0, "seed": SEED,
    }  # fmt: skip
    return Experiment().updated({**base, **changes})


def _rows(clients: int) -> Floats:
    rows = np.zeros((clients, len(TRAINING_COLUMNS)))
    rows[:, TRAINING_COLUMNS.index("outcome")] = Outcome.AGGREGATED
    rows[:, TRAINING_COLUMNS.index("weight")] = 1.0
    return rows


def adapter() -> Fedsi:
    """Return the adapter."""
    return Fedsi()
