"""Audited runs without models: canaries, cohorts, clipping, noise and audit are the real ones."""

from dataclasses import replace
from typing import Any

import numpy as np

from fedsi import Experiment
from fedsi.messages import TRAINING_COLUMNS, Outcome
from fedsi.privacy import canaries
from fedsi.sums.clipping import add_clipped
from server.aggregation import Aggregate
from server.audit import AuditedRun, audited_run
from server.cohorts.canaries import to_train, with_canaries
from server.cohorts.sampling import draw_cohort
from server.differential_privacy import Privacy, clip_norm_of, privacy_of
from server.rounds import ServerState

CLIENTS, CANARIES, SIZE = 216, 400, 3000

POISSON: dict[str, Any] = {
    "server.rounds": 20, "server.cohort_size": 280, "server.averaging": "uniform",
    "server.sampling": "poisson", "privacy.mechanism": "gaussian", "privacy.noise_multiplier": 4.0,
    "privacy.clip_norm": 0.5, "privacy.delta": 1e-5, "privacy.canaries": CANARIES,
}  # fmt: skip
SHUFFLED = {
    **POISSON, "server.sampling": "shuffled", "server.cohort_size": 100, "server.min_separation": 4,
    "privacy.mechanism": "blt", "privacy.noise_multiplier": 5.0,
}  # fmt: skip


def audited(experiment: Experiment, private: Privacy) -> AuditedRun:
    """Run an experiment whose clients send zeros, and audit it."""
    rounds, count = experiment.server.rounds, experiment.privacy.canaries
    directions = [canaries.direction(experiment.seed, k, SIZE) for k in range(count)]
    population, none = with_canaries(experiment, CLIENTS), np.zeros(SIZE, np.float32)
    state = ServerState(
        0, none, {}, private.initial_state(SIZE), participations=private.no_participations()
    )
    for number in range(1, rounds + 1):
        cohort = draw_cohort(experiment, population, None, number, experiment.seed)
        assert state.participations
        admitted = private.admitted(state.participations, number, cohort.reporting)
        members, playing = to_train(experiment, CLIENTS, cohort.reporting)
        clip_norm, sums = clip_norm_of(state.privacy), np.zeros(SIZE, np.int64)
        for canary in playing - canaries.FIRST:
            update = canaries.RAW_NORM * clip_norm * directions[canary]
            add_clipped(
                none,
                update.astype(np.float32),
                np.array([[0, SIZE]]),
                np.array([SIZE]),
                clip_norm,
                sums,
            )
        rows = np.zeros((len(members) + len(playing), len(TRAINING_COLUMNS)))
        rows[:, TRAINING_COLUMNS.index("outcome")] = Outcome.AGGREGATED
        _, after = private.release(state.privacy, Aggregate(sums, rows), number, admitted)
        state = replace(state, round_number=number, privacy=after, participations=admitted)
    return audited_run(private, state, private.cost(rounds).epsilon)


def planned(settings: dict[str, Any], seed: int = 0) -> tuple[Experiment, Privacy]:
    """Return an experiment with these settings, and its privacy."""
    experiment = Experiment().updated({**settings, "seed": seed})
    private = privacy_of(experiment, CLIENTS, content_digest=str(seed))
    assert private
    return experiment, private
