"""Every built-in architecture is trained: each takes the steps of torch.optim."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedsi import Experiment
from fedsi.experiment import ClientSettings
from fedsi.learning.client import LocalTrainer
from fedsi.models.build import build_model, initial_parameters
from fedsi.tasks import next_word
from tests.built_in import used

VOCABULARY = 12
RATE = 0.3


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "lstm"},
        {"architecture": "cifg", "recurrent_projection": True},
        {"architecture": "si_cifg", "recurrent_projection": True},
        {"architecture": "transformer", "positions": "rotary"},
        {"architecture": "si_transformer", "positions": "fire"},
        {"architecture": "mamba", "state_size": 5},
    ],
    ids=str,
)
def test_takes_the_steps_of_torch_optim(changes: dict[str, Any]) -> None:
    sizes = {"embedding_size": 8, "hidden_size": 6, "heads": 2, "feedforward_size": 10}
    model = build_model(Experiment(model=used(**{**sizes, **changes})), VOCABULARY)
    start = initial_parameters(model, 0)
    rng = np.random.default_rng(0)
    batches = [rng.integers(1, VOCABULARY, (4, 7)).astype(np.int32) for _ in range(3)]
    leaf = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([leaf], lr=RATE)
    for batch in batches:
        rows, views = torch.from_numpy(batch).long(), model.layout.views(leaf)
        logits = model.logits(views, model.features(views, rows[:, :-1]).flatten(0, 1))
        optimizer.zero_grad()
        functional.cross_entropy(logits, rows[:, 1:].flatten()).backward()
        optimizer.step()
    trainer = LocalTrainer(model, ClientSettings(learning_rate=RATE))
    trainer.begin(start)
    trainer.train(map(next_word.batch, batches))
    torch.testing.assert_close(trainer.parameters, leaf.detach(), rtol=0, atol=5e-6)
    assert not torch.equal(trainer.parameters, start)
