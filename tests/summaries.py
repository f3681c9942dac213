"""Summaries of runs that never ran."""

from dataclasses import replace
from typing import Any

import fedsi
from server.runs.summary import AuditSummary, ParticipationSummary, PrivacySummary, Summary

PRIVACY = PrivacySummary(
    epsilon=1.0,
    delta=1e-5,
    accounted_rounds=1,
    accountant="PLD",
    adjacency="one client more or less",
    mechanism="gaussian",
    sampling="poisson",
    noise_multiplier=1.0,
    population=10_000,
    cohort_size=500,
    simulated_cohort_size=20,
    extrapolated=True,
    clipping="flat",
    clip_norm=0.5,
    clipped_share=0.25,
    noise_on_mean=0.1,
    participations=ParticipationSummary(900, 2, 3, None, None, "the accounted clients"),
)
AUDIT = AuditSummary(
    canaries=50,
    included=23,
    mean_in=0.5,
    mean_out=0.0,
    deviation_in=1.25,
    deviation_out=1.0,
    guesses=10,
    correct=6,
    gaussian_epsilon=0.5,
    curve_epsilon=0.25,
    counting_epsilon=0.0,
    rounds_correct=5,
    rounds_epsilon=0.25,
    participations_likelihood=0.75,
    bound=0.5,
    bound_from="means",
    participations_fit=True,
    refuted=False,
)

SUMMARY = Summary(
    status="finished",
    ended_by="server.rounds",
    architecture="cifg",
    parameters=10,
    trained_parameters=10,
    seed=0,
    rounds=1,
    clients_trained=1,
    clients_rejected=0,
    clients_failed=0,
    clients_lost=0,
    losses={},
    rounds_repeated=0,
    clients_dropped=0,
    clients_unevaluated=0,
    tokens_trained=100,
    download_bytes=80,
    upload_bytes=40,
    train_loss=5.0,
    heldout={"loss": 5.0, "accuracy_no_oov_no_eos": 0.1},
    unigram_loss=6.0,
    best_round=1,
    best_heldout_loss=5.0,
    corpus="test",
    corpus_sha256="ab" * 32,
    vocabulary_source="count",
    vocabulary_size=204,
    population=902,
    training_clients=900,
    heldout_clients=2,
    rows=1000,
    rows_left_out={"without a user": 3},
    words_cut=0.25,
    heldout_in_training=0.0,
    not_words={"numbers": 0.5},
    clients_without_examples=0,
    model_sha256="cd" * 32,
    train_seconds=1.5,
    evaluation_seconds=0.5,
    clients_per_second=2.0,
    tokens_per_second=200.0,
    privacy=None,
    versions={"fedsi": fedsi.__version__, "numpy": "2.4"},
    provenance={"engine": "in_process", "workers": 1, "earlier": [{"processor": "another"}]},
    vocabulary_sha256="ef" * 32,
)


def summary_of(
    loss: float | None, accuracy: float | None = 0.1, heldout_clients: int = 2, **changes: Any
) -> Summary:
    """Return the summary of a run with this held-out loss; without one it diverged."""
    return replace(
        SUMMARY,
        status="diverged" if loss is None else "finished",
        heldout={"loss": loss, "accuracy_no_oov_no_eos": accuracy},
        heldout_clients=heldout_clients,
        **changes,
    )
