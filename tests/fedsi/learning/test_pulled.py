"""The pull of an algorithm in every kind of local step, against torch.optim on a longer loss."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fedsi.data.protocol import PAD
from fedsi.experiment import ClientSettings, ModelSettings
from fedsi.learning.algorithms.algorithm import NO_PULL, Pull
from fedsi.learning.client import LocalTrainer
from fedsi.learning.dp_sgd import ExamplePrivateTrainer
from fedsi.models.build import initial_parameters
from fedsi.models.recurrent import Recurrent
from fedsi.tasks import next_word
from tests.fedsi.learning.test_client import MODEL, batches

GRU = Recurrent(ModelSettings(architecture="gru", embedding_size=6, hidden_size=8), 12)
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adamw": torch.optim.AdamW,
}


def pull_of(size: int) -> Pull:
    vector = np.random.default_rng(5).standard_normal(size).astype(np.float32)
    return Pull(0.3, np.float32(0.01) * vector)


def slow(model: Recurrent, settings: ClientSettings, pull: Pull) -> Tensor:
    """Train with the pull as the gradient of a part of the loss; only the rest is clipped."""
    leaf = initial_parameters(model, 0).double().requires_grad_()
    decay = {"weight_decay": settings.weight_decay} if settings.optimizer == "adamw" else {}
    optimizer = OPTIMIZERS[settings.optimizer]([leaf], lr=settings.learning_rate, **decay)
    assert pull.vector is not None
    for batch in batches():
        inputs, targets = (torch.from_numpy(part).long() for part in (batch.inputs, batch.targets))
        named = model.layout.views(leaf)
        logits = model.logits(named, model.features(named, inputs))
        loss = functional.cross_entropy(logits.mT, targets, ignore_index=PAD)
        (leaf.grad,) = torch.autograd.grad(loss, leaf)
        if settings.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_([leaf], settings.gradient_clip)
        added = (
            pull.strength / 2 * leaf.square().sum() + leaf @ torch.from_numpy(pull.vector).double()
        )
        (more,) = torch.autograd.grad(added, leaf)
        leaf.grad += more
        optimizer.step()
    return leaf.detach()


@pytest.mark.parametrize("model", [MODEL, GRU])
@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0.5},
        {"learning_rate": 0.5, "gradient_clip": 0.05},
        {"learning_rate": 0.01, "optimizer": "adamw", "weight_decay": 0.1},
    ],
)
def test_steps_with_a_pull_are_those_of_torch(model: Recurrent, changes: dict[str, Any]) -> None:
    settings = ClientSettings(**changes)
    pull = pull_of(model.layout.size)
    start = initial_parameters(model, 0)
    trainer = LocalTrainer(model, settings)
    trainer.begin(start)
    trainer.train(batches())
    plain = trainer.parameters.double()
    trainer.train(batches(), pull)
    expected = slow(model, settings, pull)
    found = trainer.parameters.double()
    assert float((found - expected).norm()) < 1e-4 * float((plain - expected).norm())
    assert trainer.spans.tolist() == [[0, len(start)]]
    trainer.train(batches(), NO_PULL)
    assert torch.equal(trainer.parameters.double(), plain)


def test_the_pull_of_dp_sgd_is_added_to_the_noisy_gradient() -> None:
    settings = ClientSettings(
        learning_rate=0.5, batch_size=4, example_noise_multiplier=1.0, example_clip_norm=0.1
    )
    rows = np.array([[1, 4, 5, 6], [1, 7, 8, 0]], np.int32)

    def noise(step: int, hidden: Any) -> Any:
        return np.random.default_rng(step).standard_normal(len(hidden)).astype(np.float32)

    start = initial_parameters(MODEL, 0)
    pull = pull_of(len(start))
    trainer = ExamplePrivateTrainer(MODEL, settings)
    trainer.begin(start)
    ends = []
    for each in (NO_PULL, pull):
        trainer.train([next_word.batch(rows)], noise, each)
        ends.append(trainer.parameters.clone())
    assert pull.vector is not None
    added = pull.strength * start + torch.from_numpy(pull.vector)
    torch.testing.assert_close(ends[1], ends[0] - 0.5 * added, rtol=0, atol=1e-6)
