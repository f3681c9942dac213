"""The summary of a run: what ``summary.json`` and ``fedsi run --json`` say."""

import hashlib
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

import fedsi
from fedsi.data.population import Description
from fedsi.experiment import Experiment
from fedsi.models.build import build_model
from server.rounds import RoundRecord, State, has_diverged


def model_file(experiment: Experiment, description: Description, state: State) -> bytes:
    """Return the named parameters as the bytes of a safetensors file."""
    layout = build_model(experiment, description.vocabulary_size).layout
    views = layout.views(torch.from_numpy(state.parameters))
    return bytes(save({name: np.ascontiguousarray(view.numpy()) for name, view in views.items()}))


def summarise_run(
    experiment: Experiment,
    description: Description,
    records: Sequence[RoundRecord],
    model: bytes,
) -> dict[str, Any]:
    """Return the summary of a run that has ended, of values that JSON can hold.

    Args:
        experiment: The configuration.
        description: Of the population.
        records: All rounds, the last one evaluated.
        model: The bytes of ``model.safetensors``; their SHA-256 is ``model_sha256``.
    """
    clients = sum(record.clients for record in records)
    tokens = sum(record.tokens for record in records)
    seconds = sum(record.train_seconds for record in records)
    last = records[-1]
    heldout = asdict(last.heldout) if last.heldout else {}
    unigram_loss = heldout.pop("unigram_loss", description.unigram_loss)
    layout = build_model(experiment, description.vocabulary_size).layout
    return {
        "status": "diverged" if has_diverged(last, description) else "finished",
        "architecture": experiment.model.architecture,
        "parameters": layout.size,
        "seed": experiment.seed,
        "rounds": last.round,
        "clients_trained": clients,
        "clients_rejected": sum(record.rejected for record in records),
        "clients_failed": sum(record.failed for record in records),
        "clients_dropped": sum(record.dropped for record in records),
        "tokens_trained": tokens,
        "train_loss": _finite(last.train_loss),
        **{f"heldout_{name}": _finite(value) for name, value in heldout.items()},
        "unigram_loss": _finite(unigram_loss),
        "corpus": description.corpus,
        "corpus_sha256": description.corpus_sha256,
        "vocabulary_source": description.vocabulary_source,
        "vocabulary_size": description.vocabulary_size,
        "population": description.training_clients + description.heldout_clients,
        "training_clients": description.training_clients,
        "heldout_clients": description.heldout_clients,
        "model_sha256": hashlib.sha256(model).hexdigest(),
        "train_seconds": round(seconds, 3),
        "evaluation_seconds": round(sum(record.evaluation_seconds for record in records), 3),
        "clients_per_second": round(clients / seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions that results may depend on."""
    return {
        "fedsi": fedsi.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("flwr", "numpy", "torch")},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
