"""Local SGD against torch.optim on a plain module of the same functions."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedsi.data.protocol import PAD
from fedsi.experiment import ClientSettings, ModelSettings
from fedsi.learning.client import LocalTrainer
from fedsi.learning.evaluation import evaluate_client
from fedsi.models.build import initial_parameters
from fedsi.models.recurrent import Recurrent
from fedsi.tasks import next_word
from fedsi.tasks.next_word import TASK
from fedsi.tasks.task import Batch

UNIFORM = torch.full((12,), -math.log(12), dtype=torch.float64)
MODEL = Recurrent(ModelSettings(embedding_size=6, hidden_size=8), 12)


def batches(count: int = 5) -> Iterator[Batch]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        lengths = rng.integers(2, 7, size=4)
        rows = rng.integers(1, 12, size=(4, 7))
        rows[np.arange(7) >= lengths[:, None]] = PAD
        yield next_word.batch(rows.astype(np.int32))


def slow_sgd(settings: ClientSettings) -> tuple[torch.Tensor, float, int]:
    """Train with logits for every position, padding masked by ignore_index."""
    leaves = {
        name: view.clone().requires_grad_()
        for name, view in MODEL.layout.views(initial_parameters(MODEL, 0)).items()
    }
    decay = settings.weight_decay
    optimizer = torch.optim.SGD(leaves.values(), lr=settings.learning_rate)
    total, tokens = 0.0, 0
    for batch in batches():
        inputs, targets = (torch.from_numpy(part).long() for part in (batch.inputs, batch.targets))
        logits = MODEL.logits(leaves, MODEL.features(leaves, inputs))
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        if settings.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(leaves.values(), settings.gradient_clip)
        for leaf in leaves.values():
            leaf.data.mul_(1 - settings.learning_rate * decay)
        optimizer.step()
        count = int((targets != PAD).sum())
        total, tokens = total + loss.item() * count, tokens + count
    return torch.cat([leaf.detach().flatten() for leaf in leaves.values()]), total, tokens


@pytest.mark.parametrize(
    "settings",
    [
        ClientSettings(learning_rate=0.7),
        ClientSettings(learning_rate=0.7, weight_decay=0.1),
        ClientSettings(learning_rate=0.7, gradient_clip=0.05),
        ClientSettings(learning_rate=0.7, gradient_clip=1e6),
    ],
)
def test_equals_plain_sgd(settings: ClientSettings) -> None:
    trainer = LocalTrainer(MODEL, settings)
    trainer.begin(torch.randn(MODEL.layout.size))
    trainer.train(batches(2))  # dirty the buffers
    trainer.begin(initial_parameters(MODEL, 0))
    result = trainer.train(batches())
    expected, loss, tokens = slow_sgd(settings)
    torch.testing.assert_close(trainer.parameters, expected, rtol=0, atol=2e-6)
    assert result.tokens == tokens
    assert result.loss == pytest.approx(loss, rel=1e-5)
    assert result.examples == 20


@pytest.mark.parametrize(
    "settings",
    [ClientSettings(), ClientSettings(gradient_clip=1e-3), ClientSettings(weight_decay=0.1)],
)
def test_a_client_leaves_nothing_to_the_next_and_differs_only_in_its_spans(
    settings: ClientSettings,
) -> None:
    start = initial_parameters(MODEL, 0)
    few_words = [next_word.batch(np.array([[3, 4, 3]], np.int32))]
    used, fresh = LocalTrainer(MODEL, settings), LocalTrainer(MODEL, settings)
    for trainer in (used, fresh):
        trainer.begin(start)
    used.train(batches())
    for trainer in (used, fresh):
        trainer.train(few_words)
    assert torch.equal(used.parameters, fresh.parameters)
    differs = (used.parameters != start).numpy()
    within = np.zeros(len(start), bool)
    for first, last in used.spans:
        within[first:last] = True
    assert not (differs & ~within).any()
    assert within.all() == (settings.weight_decay > 0)


def test_a_client_with_a_gradient_that_is_no_number_leaves_nothing_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = initial_parameters(MODEL, 0)
    settings = ClientSettings(gradient_clip=1.0)
    used, fresh = LocalTrainer(MODEL, settings), LocalTrainer(MODEL, settings)
    for trainer in (used, fresh):
        trainer.begin(start)
    with monkeypatch.context() as patch:
        patch.setattr("fedsi.learning.step_by_hand.step_scale", lambda *_: math.nan)
        used.train(batches(1))
    assert used.parameters.isnan().all()
    for trainer in (used, fresh):
        trainer.train(batches())
    assert torch.equal(used.parameters, fresh.parameters)


def test_clipping_bounds_a_step() -> None:
    trainer = LocalTrainer(MODEL, ClientSettings(learning_rate=1.0, gradient_clip=0.01))
    start = initial_parameters(MODEL, 0)
    trainer.begin(start)
    trainer.train(batches(1))
    assert torch.linalg.vector_norm(trainer.parameters - start).item() == pytest.approx(
        0.01, rel=1e-4
    )


def test_evaluation_does_not_depend_on_how_examples_are_batched() -> None:
    parameters = MODEL.layout.views(initial_parameters(MODEL, 0))
    together = list(batches())
    apart = [
        Batch(inputs[None], targets[None])
        for batch in together
        for inputs, targets in zip(batch.inputs, batch.targets, strict=True)
    ]
    one, other = (
        evaluate_client(TASK, MODEL, parameters, iter(b), UNIFORM).tolist()
        for b in (together, apart)
    )
    assert one == pytest.approx(other, rel=1e-6)
    assert one[0] == 20


def test_an_untrained_model_is_near_the_uniform_loss() -> None:
    parameters = MODEL.layout.views(initial_parameters(MODEL, 0))
    _, tokens, loss, *_ = evaluate_client(TASK, MODEL, parameters, batches(), UNIFORM)
    assert loss / tokens == pytest.approx(math.log(12), abs=0.5)
