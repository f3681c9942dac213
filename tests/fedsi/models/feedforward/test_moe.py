"""Mixtures of experts: the equations token by token, the balance loss, and how clients train."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fedsi import Experiment, UserError
from fedsi.data.labels import LabelTokens
from fedsi.experiment import ClientSettings, ModelSettings
from fedsi.learning.client import LocalTrainer
from fedsi.models.build import initial_parameters
from fedsi.models.dual_encoder import LABEL, DualEncoder
from fedsi.models.feedforward.moe import PART, chosen, one_token, probabilities
from fedsi.models.parameters import Parameters
from fedsi.models.table import is_penalised
from fedsi.models.transformer import Transformer
from fedsi.tasks import next_word

SIZE = 6
both = pytest.mark.parametrize("architecture", ["transformer", "si_transformer"])


def settings(architecture: str = "transformer", **changes: Any) -> ModelSettings:
    values = {"embedding_size": SIZE, "heads": 2, "layers": 2, "feedforward_size": 5}
    return ModelSettings(architecture=architecture, feedforward="moe", **{**values, **changes})


def drawn(some: ModelSettings) -> tuple[Parameters, Tensor]:
    generator = torch.Generator().manual_seed(0)
    named = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in PART.shapes(some).items()
    }
    return named, torch.randn(3, 4, SIZE, generator=generator, dtype=torch.float64)


@both
@pytest.mark.parametrize("number", [1, 2])
def test_equals_the_equations_one_token_at_a_time(architecture: str, number: int) -> None:
    some = settings(architecture, experts_per_token=number)
    named, x = drawn(some)
    expected, counts, means = torch.zeros_like(x), torch.zeros(4), torch.zeros(4)
    real = torch.ones(3, 4, dtype=torch.bool)
    real[2, 2:] = False
    for place in [(b, t) for b in range(3) for t in range(4)]:
        scores = [float(x[place] @ named["router"][:, e]) for e in range(4)]
        positive = [max(score, 0.0) for score in scores]
        total = sum(positive) or 1.0
        shares = torch.tensor(scores).softmax(0).tolist() if architecture == "transformer" else [
            one / total for one in positive
        ]  # fmt: skip
        for e in sorted(range(4), key=lambda e: -shares[e])[:number]:
            inner = torch.relu(x[place] @ named["inner"][e])
            expected[place] += shares[e] * inner @ named["outer"][e]
            counts[e] += bool(real[place]) and shares[e] > 0
        means += real[place] * torch.tensor(shares)
    found = PART.run(some, named, x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    alone = torch.stack([one_token(some, named, x[b, t].view(1, 1, -1)).flatten()
                         for b in range(3) for t in range(4)])  # fmt: skip
    torch.testing.assert_close(alone.view_as(found), found, rtol=1e-10, atol=1e-10)
    assert PART.penalty is not None
    balance = 0.01 * 4 * (counts / (10 * number) * means / 10).sum()
    assert PART.penalty(some, named, x, real).item() == pytest.approx(balance.item(), rel=1e-5)


def test_the_balance_loss_is_its_weight_if_experts_are_used_alike_and_more_otherwise() -> None:
    some = settings(embedding_size=4, heads=2, balance=0.3)
    named, real = {"router": 50 * torch.eye(4)}, torch.ones(1, 4, dtype=torch.bool)
    assert PART.penalty is not None
    even, same = torch.eye(4)[None], torch.eye(4)[[0, 0, 0, 1]][None]
    assert PART.penalty(some, named, even, real).item() == pytest.approx(0.3)
    assert PART.penalty(some, named, same, real).item() == pytest.approx(0.3 * 4 * (9 + 1) / 16)


@both
def test_the_router_is_invariant_to_its_scale_only_in_scale_invariant_blocks(
    architecture: str,
) -> None:
    some = settings(architecture)
    named, x = drawn(some)
    leaf = named["router"].clone().requires_grad_()
    result = PART.run(some, {**named, "router": leaf}, x)
    (gradient,) = torch.autograd.grad(result.square().sum(), leaf)
    cosine = functional.cosine_similarity(gradient.flatten(), named["router"].flatten(), dim=0)
    larger = PART.run(some, {**named, "router": 7 * named["router"]}, x)
    invariant = torch.allclose(larger, result.detach(), rtol=1e-9, atol=1e-9)
    assert invariant == (abs(cosine.item()) < 1e-10) == (architecture == "si_transformer")


def tokens(seed: int) -> Tensor:
    return torch.randint(0, 13, (4, 9), generator=torch.Generator().manual_seed(seed))


def test_clients_use_their_experts_and_balance_them() -> None:
    """Steps follow the gradient of both losses; only the first is reported."""
    lm = Transformer(settings(balance=0.5), 13)
    start = initial_parameters(lm, 0)
    batch = next_word.batch(tokens(1).numpy())
    leaf = start.clone().requires_grad_()
    views = lm.layout.views(leaf)
    inputs = torch.from_numpy(batch.inputs).long()
    features, penalty = lm.features_and_penalty(views, inputs)
    targets = torch.from_numpy(batch.targets).long()
    logits = lm.logits(views, features).flatten(0, 1)
    loss = functional.cross_entropy(logits, targets.flatten(), ignore_index=0)
    (gradient,) = torch.autograd.grad(loss + penalty, leaf)
    trainer = LocalTrainer(lm, ClientSettings(learning_rate=0.2))
    trainer.begin(start)
    result = trainer.train([batch])
    assert result.loss / result.tokens == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(trainer.parameters, start - 0.2 * gradient, rtol=0, atol=1e-6)
    plain = LocalTrainer(Transformer(settings(balance=0.0), 13), ClientSettings(learning_rate=0.2))
    plain.begin(start)
    plain.train([batch])
    assert (plain.parameters - trainer.parameters).abs().max() > 1e-4


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("label_encoder", ["shared", "own", "table"])
def test_the_encoder_of_a_dual_encoder_is_balanced_too(label_encoder: str, pooling: str) -> None:
    own = settings(balance=0.5).model_copy(
        update={
            "architecture": "dual_encoder",
            "encoder": "transformer",
            "label_encoder": label_encoder,
            "pooling": pooling,
        }
    )
    assert is_penalised(own)
    assert not is_penalised(own.model_copy(update={"balance": 0.0}))
    texts = tokens(2).numpy().astype(np.int32)
    dual = DualEncoder(own, 13, LabelTokens(len(texts), texts))
    views = dual.layout.views(initial_parameters(dual, 0))
    inputs = tokens(1)
    features, penalty = dual.features_and_penalty(views, inputs)
    torch.testing.assert_close(features, dual.features(views, inputs))
    encoder = Transformer(own.of_encoder, 13)
    _, expected = encoder.features_and_penalty(views, inputs)
    if label_encoder == "own":
        labels = {name.removeprefix(LABEL): views[name] for name in views if name.startswith(LABEL)}
        _, more = encoder.features_and_penalty(labels, tokens(2))
        expected = expected + more
    torch.testing.assert_close(penalty, expected)


def test_a_balance_loss_spreads_what_one_expert_had() -> None:
    """From a router that sends most tokens to one expert."""
    shares = {}
    for balance in (0.0, 1.0):
        lm = Transformer(settings(balance=balance, layers=1), 13)
        start = initial_parameters(lm, 0)
        x = lm.features_and_parts(lm.layout.views(start), tokens(1))[1][0]
        lm.layout.views(start)["blocks.0.feedforward.router"][:, 0] += x.flatten(0, 1).mean(0)
        trainer = LocalTrainer(lm, ClientSettings(learning_rate=0.5))
        trainer.begin(start)
        trainer.train([next_word.batch(tokens(k).numpy()) for k in range(60)])
        views = lm.layout.views(trainer.parameters)
        (x,) = lm.features_and_parts(views, tokens(99))[1]
        router = views["blocks.0.feedforward.router"]
        used = chosen(lm.settings, probabilities(lm.settings, router, x))
        shares[balance] = float(used.float().mean((0, 1)).max())
    assert shares[1.0] < 0.5
    assert shares[1.0] < shares[0.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.experts": 1}, r"^model.experts=1 leaves the router no choice; set model.experts"),
        ({"model.experts_per_token": 3}, r"^model.experts_per_token"),
        ({"model.activation": "geglu"}, r"geglu is not defined for model.feedforward=moe"),
        ({"client.example_noise_multiplier": 1.0, "server.averaging": "uniform",
          "data.max_examples_per_client": 9}, r"a whole batch; set model.balance=0.0"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(changes: dict[str, Any], message: str) -> None:
    base = Experiment(model={"architecture": "transformer", "feedforward": "moe"})
    with pytest.raises(UserError, match=message):
        base.updated(changes)
