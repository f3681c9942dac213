"""The groups that a token uses, and the invariances of its gates."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fedsi import Experiment, UserError
from fedsi.experiment import ModelSettings
from fedsi.models.feedforward.top_k import PART, gate_constants, gates_of
from fedsi.models.parameters import Parameters

SIZE, GROUPS = 8, 25


def settings(**changes: Any) -> ModelSettings:
    values = {"embedding_size": SIZE, "feedforward_size": 16 * GROUPS, "active_share": 0.08}
    return ModelSettings(architecture="transformer", feedforward="top_k", **{**values, **changes})


def drawn(some: ModelSettings) -> tuple[Parameters, Tensor]:
    generator = torch.Generator().manual_seed(0)
    named = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in PART.shapes(some).items()
    }
    return named, torch.randn(3, 4, SIZE, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_equals_the_equations_one_group_at_a_time(activation: str) -> None:
    some = settings(activation=activation)
    named, x = drawn(some)
    act = torch.relu if activation == "relu" else torch.nn.functional.gelu
    q, c = gate_constants(0.08)
    expected = torch.zeros_like(x)
    for place in [(b, t) for b in range(3) for t in range(4)]:
        token = x[place]
        scores = [float(token @ named["router"][:, group]) for group in range(GROUPS)]
        mean = sum(scores) / GROUPS
        deviation = (sum((score - mean) ** 2 for score in scores) / GROUPS) ** 0.5
        for group, score in enumerate(scores):
            gate = c * max((score - mean) / deviation - q, 0.0)
            rows = slice(16 * group, 16 * group + 16)
            expected[place] += gate * act(named["inner"][rows] @ token) @ named["outer"][rows]
    torch.testing.assert_close(PART.run(some, named, x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.08, 0.5])
def test_normal_scores_have_the_share_and_gates_of_mean_square_one(share: float) -> None:
    """Both within four standard errors; a threshold or factor for another share fails."""
    generator = torch.Generator().manual_seed(1)
    scores = 7 - 3 * torch.randn(400, 2000, generator=generator, dtype=torch.float64)
    gates = gates_of(settings(active_share=share), scores)
    assert (gates > 0).double().mean().item() == pytest.approx(share, abs=0.002)
    square = gates.square()
    error = float(square.std() / square.numel() ** 0.5)
    assert square.mean().item() == pytest.approx(1, abs=4 * error)
    assert error < 0.02


def test_the_router_alone_is_scale_invariant() -> None:
    some = settings()
    named, x = drawn(some)
    leaves = {name: value.clone().requires_grad_() for name, value in named.items()}
    before = PART.run(some, leaves, x)
    gradient, inner = torch.autograd.grad(
        before.square().sum(), [leaves["router"], leaves["inner"]]
    )
    cosine = torch.nn.functional.cosine_similarity
    assert gradient.norm() > 1
    assert abs(cosine(gradient.flatten(), named["router"].flatten(), dim=0)) < 1e-12
    assert abs(cosine(inner.flatten(), named["inner"].flatten(), dim=0)) > 1e-3
    for by in (1e-3, 40.0):
        larger = PART.run(some, {**named, "router": by * named["router"]}, x)
        torch.testing.assert_close(larger, before.detach(), rtol=1e-9, atol=1e-9)
    for name in ("inner", "outer"):
        larger = PART.run(some, {**named, name: 5 * named[name]}, x)
        torch.testing.assert_close(larger, 5 * before.detach())


def test_equal_scores_use_no_group_and_give_finite_gradients() -> None:
    some = settings()
    named, x = drawn(some)
    leaf = torch.zeros_like(named["router"]).requires_grad_()
    result = PART.run(some, {**named, "router": leaf}, x)
    assert not result.any()
    (gradient,) = torch.autograd.grad(result.sum(), leaf)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feedforward_size": 250}, r"groups of 16 neurons, which do not divide .* \(250\); set "
         r"model.feedforward_size=256"),
        ({"feedforward_size": 128}, "0.08 of the 8 groups .* less than one group; raise one"),
        ({"activation": "geglu"}, "geglu is not defined for model.feedforward=top_k"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Experiment(model={"architecture": "transformer", "feedforward": "top_k", **changes})


def test_precision_that_needs_gradients_by_hand_is_refused() -> None:
    from fedsi.tasks.table import check_task

    model = {"architecture": "transformer", "feedforward": "top_k"}
    with pytest.raises(UserError, match=r"or a model\.feedforward that is not dense"):
        check_task(Experiment(model=model, client={"precision": "bfloat16"}), 100)
