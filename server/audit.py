"""The audit of a finished run by its canaries."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fedsi.privacy import canaries
from fedsi.privacy.aligned_sums import matched_sums, noise_covariance
from fedsi.privacy.audit import audit, canary_distances
from fedsi.privacy.claimed_curve import claimed_curve
from server.differential_privacy import SCORES, TURNS, Privacy
from server.rounds import ServerState
from server.runs.summary import AuditSummary


@dataclass(frozen=True)
class AuditedRun:
    """The result of an audit, and what ``canaries.csv`` has of each canary."""

    summary: AuditSummary
    scores: NDArray[np.float64]
    distances: NDArray[np.float64]
    included: NDArray[np.bool_]


def audited_run(private: Privacy, state: ServerState, epsilon: float | None) -> AuditedRun:
    """Compare what a run claims with its canaries' scores.

    Args:
        private: The run's privacy, with canaries.
        state: The state after the last round.
        epsilon: The claim; None if it is infinite.
    """
    rounds = state.round_number
    by_round = state.privacy[SCORES][:rounds].astype(np.float64)
    included = canaries.included(private.experiment.seed, by_round.shape[1])
    scores = by_round.sum(0)
    if TURNS in state.privacy:
        covariance = noise_covariance(private.mechanism, rounds)
        scores = matched_sums(by_round, state.privacy[TURNS][:rounds], covariance)
    curve = None if epsilon is None else claimed_curve(private.plan, rounds)
    likely = private.likelihood(state.participations, rounds)
    found = audit(scores, by_round, included, private.plan.delta, curve, likely)
    summary = AuditSummary(
        **asdict(found),
        bound=found.bound,
        bound_from=found.bound_from,
        participations_fit=found.participations_fit,
        refuted=found.refutes(epsilon),
    )
    return AuditedRun(summary, scores, canary_distances(by_round), included)
