"""Construction of a finished run's summary."""

import hashlib
import math
import platform
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

import fedsi
from fedsi.data.batches import poisson_rate, poisson_steps
from fedsi.data.population import Description
from fedsi.experiment import Experiment
from fedsi.learning.gradient_clipping import is_clipped
from fedsi.models.build import build_model
from fedsi.models.model import all_parameters, count_parameters
from fedsi.privacy.example_level import example_epsilon
from fedsi.privacy.participation import Participations
from fedsi.tasks.table import task_of
from server.best_model import Best
from server.differential_privacy import Privacy
from server.endings import EPSILON_BUDGET, ROUNDS, STATUS, STOPPED
from server.round_record import RoundRecord
from server.rounds import ServerState
from server.runs.summary import (
    ExamplePrivacySummary,
    ParticipationSummary,
    PrivacySummary,
    Summary,
)

COVERED = {
    "architecture",
    "parameters",
    "seed",
    "rounds",
    "model_sha256",
    "algorithm",
    "privacy",
    "provenance",
    "versions",
}
"""Keys of a private run's summary that follow from its settings and its releases."""

COVERED_OF_CLAIM = {
    "epsilon",
    "accounted_rounds",
    "delta",
    "accountant",
    "adjacency",
    "mechanism",
    "sampling",
    "noise_multiplier",
    "population",
    "cohort_size",
    "simulated_cohort_size",
    "extrapolated",
    "clipping",
    "clip_norm",
    "noise_on_mean",
}
"""The same keys of its part ``privacy``."""


def model_file(experiment: Experiment, description: Description, state: ServerState) -> bytes:
    """Return the named parameters as the bytes of a safetensors file."""
    model = build_model(experiment, description.vocabulary_size)
    named = all_parameters(model, torch.from_numpy(state.parameters))
    return bytes(save({name: np.ascontiguousarray(value.numpy()) for name, value in named.items()}))


def summarise_run(
    experiment: Experiment,
    description: Description,
    records: Sequence[RoundRecord],
    model: bytes,
    private: Privacy | None = None,
    participations: Participations | None = None,
    best: Best | None = None,
) -> Summary:
    """Return the summary of a finished run.

    Args:
        experiment: The configuration.
        description: The population's description.
        records: All rounds, the last one evaluated.
        model: The bytes of ``model.safetensors``; their SHA-256 is ``model_sha256``.
        private: The run's privacy, if it has any.
        participations: The training clients' participations, where they are counted.
        best: The model of the lowest held-out loss.
    """
    last = records[-1]
    heldout = dict(last.heldout or {})
    asked = "unigram_loss" in task_of(experiment).names
    unigram_loss = heldout.pop("unigram_loss", description.unigram_loss if asked else math.nan)
    trained = build_model(experiment, description.vocabulary_size)
    return Summary(
        status=STATUS.get(last.ended, STOPPED),
        ended_by=last.ended,
        architecture=experiment.model.architecture,
        parameters=count_parameters(trained),
        trained_parameters=trained.layout.size,
        seed=experiment.seed,
        rounds=last.round,
        **_counts(records),
        train_loss=_finite(last.train_loss),
        heldout={name: _finite(value) for name, value in heldout.items()},
        unigram_loss=_finite(unigram_loss),
        best_round=best.round if best else None,
        best_heldout_loss=best.loss if best else None,
        **_population(description),
        model_sha256=hashlib.sha256(model).hexdigest(),
        **_speed(records),
        clipped_steps_share=_clipped_steps(records) if is_clipped(experiment.client) else None,
        privacy=_privacy(private, records, participations) if private else None,
        versions=versions(),
        example_privacy=_example_privacy(experiment, participations) if participations else None,
    )


def _counts(records: Sequence[RoundRecord]) -> dict[str, Any]:
    return {
        "clients_trained": sum(record.clients for record in records),
        "clients_rejected": sum(record.rejected for record in records),
        "clients_failed": sum(record.failed for record in records),
        "clients_lost": sum(record.lost for record in records),
        "losses": losses_of(records),
        "rounds_repeated": sum(record.repeats > 0 for record in records),
        "clients_dropped": sum(record.dropped for record in records),
        "clients_unevaluated": records[-1].unevaluated,
        "tokens_trained": sum(record.tokens for record in records),
        "download_bytes": sum(record.download_bytes for record in records),
        "upload_bytes": sum(record.upload_bytes for record in records),
    }


def losses_of(records: Sequence[RoundRecord]) -> dict[str, int]:
    """Return the number of contributions that rounds lost, by the kind's column."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record.losses)
    return dict(counts)


def _clipped_steps(records: Sequence[RoundRecord]) -> float:
    """Return the share of the local steps whose gradient was clipped."""
    clipped = sum(record.clipped_steps for record in records)
    return clipped / max(1, sum(record.steps for record in records))


def _population(description: Description) -> dict[str, Any]:
    return {
        "corpus": description.corpus,
        "corpus_sha256": description.corpus_sha256,
        "vocabulary_source": description.vocabulary_source,
        "vocabulary_size": description.vocabulary_size,
        "population": description.training_clients + description.heldout_clients,
        "training_clients": description.training_clients,
        "heldout_clients": description.heldout_clients,
        "rows": description.rows,
        "rows_left_out": description.rows_left_out,
        "words_cut": description.words_cut,
        "heldout_in_training": description.heldout_in_training,
        "not_words": description.not_words,
        "clients_without_examples": description.clients_without_examples,
    }


def _speed(records: Sequence[RoundRecord]) -> dict[str, Any]:
    seconds = sum(record.train_seconds for record in records)
    return {
        "train_seconds": round(seconds, 3),
        "evaluation_seconds": round(sum(record.evaluation_seconds for record in records), 3),
        "clients_per_second": round(sum(record.clients for record in records) / seconds, 3),
        "tokens_per_second": round(sum(record.tokens for record in records) / seconds, 1),
    }


def not_private(summary: Summary) -> tuple[str, ...]:
    """Return the keys that epsilon does not cover, however private the run is.

    They are the simulator's view, for the person who runs it: everything that is not known to
    follow from the settings and the released models.
    """
    values = summary.to_json()
    beside = [name for name in values if name not in COVERED]
    return (
        *beside,
        *(f"privacy.{name}" for name in values["privacy"] or {} if name not in COVERED_OF_CLAIM),
    )


def _privacy(
    private: Privacy, records: Sequence[RoundRecord], participations: Participations | None
) -> PrivacySummary:
    """Return a run's privacy claim, and its unit.

    An early end may depend on what the run released. It is not proven that the rounds until then
    cost no more, so the claim covers all planned rounds.
    """
    planned = records[-1].ended in {ROUNDS, EPSILON_BUDGET}
    rounds = records[-1].round if planned else private.affordable_rounds()
    cost, settings = private.cost(rounds), private.experiment.privacy
    plan, server = private.plan, private.experiment.server
    clipped = sum(record.clipped for record in records)
    return PrivacySummary(
        epsilon=_finite(cost.epsilon),
        delta=plan.delta,
        accounted_rounds=rounds,
        accountant=cost.accountant,
        adjacency=cost.adjacency,
        mechanism=plan.mechanism,
        sampling=plan.sampling,
        noise_multiplier=plan.noise_multiplier,
        population=plan.population,
        cohort_size=plan.cohort_size,
        simulated_cohort_size=server.cohort_size,
        extrapolated=settings.population is not None or settings.cohort_size is not None,
        clipping=settings.clipping,
        clip_norm=_finite(records[-1].clip_norm),
        clipped_share=clipped / max(1, sum(record.clients for record in records)),
        noise_on_mean=private.noise_on_mean(records[-1].round) * records[-1].clip_norm,
        participations=_participations(private, participations) if participations else None,
    )


def _participations(private: Privacy, found: Participations) -> ParticipationSummary:
    """Return how the simulated clients took part, as checked in every round.

    In an extrapolation this says nothing about the accounted clients.
    """
    bounded = private.plan.bounds_participations
    return ParticipationSummary(
        clients=int((found.times > 0).sum()),
        most=int(found.times.max()),
        closest=int(found.closest[0]) or None,
        most_allowed=private.simulated.most_participations if bounded else None,
        closest_allowed=private.simulated.min_separation if bounded else None,
        checked="the accounted clients"
        if private.simulated == private.plan
        else "the simulated clients; those of the accounted population are assumed",
    )


def _example_privacy(
    experiment: Experiment, participations: Participations
) -> ExamplePrivacySummary | None:
    """Return the claim of DP-SGD on the clients, if they use it.

    Its epsilon is that of the client that took part most often.
    """
    client = experiment.client
    if client.example_noise_multiplier is None:
        return None
    most, nominal = int(participations.times.max()), experiment.nominal_examples
    return ExamplePrivacySummary(
        epsilon=_finite(example_epsilon(client, nominal, most)),
        delta=client.example_delta,
        accountant="RDP (opacus)",
        adjacency="add or remove one example",
        unit="one example, in the update that leaves the client's device",
        noise_multiplier=client.example_noise_multiplier,
        clip_norm=client.example_clip_norm,
        sampling_rate=poisson_rate(client, nominal),
        steps=poisson_steps(client, nominal),
        most_participations=most,
    )


def versions() -> dict[str, str]:
    """Return the versions of packages that results may depend on."""
    return {
        "fedsi": fedsi.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("flwr", "numpy", "torch")},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
