"""A slow, simple reference of distillation between rounds, and the small public corpus of tests."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedsi import Experiment
from fedsi.data.batches import trim
from fedsi.data.population import Population
from fedsi.models.model import Model
from fedsi.seeds import Purpose, generator
from fedsi.tasks import next_word
from fedsi.tasks.task import Batch

Slowly = Callable[[Batch], Tensor]
"""Returns logits at a batch's targets, float64 ``[targets, vocabulary]``."""


def write_public_corpus(folder: Path, words: int = 100) -> Path:
    """Write 60 texts of 4 authors, of the first words of the synthetic corpus and some others."""
    rng = np.random.default_rng(3)
    file = folder / "public.jsonl"
    texts = [
        " ".join(f"word{k}" for k in rng.integers(0, words + 10, rng.integers(2, 12)))
        for _ in range(60)
    ]
    rows = (json.dumps({"user": f"author {k % 4}", "text": text}) for k, text in enumerate(texts))
    file.write_text("\n".join(rows) + "\n")
    return file


def logits_in_float64(model: Model, flat: Tensor) -> Slowly:
    """Return the logits of a model, position by position of the batch and then the asked ones."""

    def logits(batch: Batch) -> Tensor:
        named = model.layout.views(flat)
        everywhere = model.logits(
            named, model.features(named, torch.from_numpy(batch.inputs).long())
        )
        return everywhere[torch.from_numpy(batch.asked)]

    return logits


def mean_of(models: list[Slowly]) -> Slowly:
    """Return the mean of the logits of models, one after the other."""

    def logits(batch: Batch) -> Tensor:
        total = 0.0 * models[0](batch)
        for one in models:
            total = total + one(batch)
        return total / len(models)

    return logits


def slow_distillation(
    experiment: Experiment,
    public: Population,
    model: Model,
    start: Tensor,
    imitated: Slowly,
    number: int,
) -> Tensor:
    """Return the parameters after a round's distillation by a plain loop in float64."""
    settings, facts = experiment.algorithm, public.description
    rows: list[np.ndarray] = []
    for client in range(facts.training_clients + facts.heldout_clients):
        rows += list(public.examples(client))
    leaf = start.clone().requires_grad_()
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[settings.distillation_optimizer]
    optimizer = kind([leaf], lr=settings.distillation_learning_rate, weight_decay=0.0)
    rng = generator(experiment.seed, Purpose.PUBLIC_ORDER, number)
    left: list[int] = []
    for _ in range(settings.distillation_steps):
        left = left or rng.permutation(len(rows)).tolist()
        places, left = (
            left[: settings.distillation_batch_size],
            left[settings.distillation_batch_size :],
        )
        batch = next_word.batch(trim(np.array([rows[k] for k in places])))
        heat = settings.temperature
        with torch.no_grad():
            wanted = (imitated(batch) / heat).softmax(-1)
        found = (logits_in_float64(model, leaf)(batch) / heat).log_softmax(-1)
        loss = heat**2 * -(wanted * found).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return leaf.detach()
