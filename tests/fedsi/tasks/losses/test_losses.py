"""The losses of labels against slow direct evaluations, in float64."""

import math

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from fedsi.tasks.losses import decoupled_softmax, soft_top_k, softmax
from fedsi.tasks.losses.table import LOSSES

RIGHT = torch.tensor([[2, 5, -1], [0, -1, -1], [1, 3, 6]])
K = 3


def scores_of(scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return scale * torch.randn(3, 7, generator=generator, dtype=torch.float64)


def labels(row: int) -> list[int]:
    return [n for n in RIGHT[row].tolist() if n >= 0]


def slow_shift(scores: list[float], k: int) -> float:
    """Return t with ``sum sigmoid(s + t) = k`` by bisection."""
    low, high = -100.0, 100.0
    for _ in range(200):
        middle = (low + high) / 2
        if sum(1 / (1 + math.exp(-(s + middle))) for s in scores) < k:
            low = middle
        else:
            high = middle
    return low


def slow(name: str, scores: list[float], right: list[int]) -> float:
    """Evaluate an equation of the docstrings for one query, label by label."""
    total = 0.0
    for p in right:
        wrong = [math.exp(s) for n, s in enumerate(scores) if n not in right]
        if name == "softmax":
            share = math.exp(scores[p]) / sum(map(math.exp, scores))
        elif name == "decoupled_softmax":
            share = math.exp(scores[p]) / (math.exp(scores[p]) + sum(wrong))
        else:
            share = 1 / (1 + math.exp(-(scores[p] + slow_shift(scores, K))))
        total -= math.log(share) / len(right)
    return total


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_equation_and_so_is_its_gradient(name: str) -> None:
    scores = scores_of()
    found = LOSSES[name](scores, RIGHT, None, K)
    expected = [slow(name, scores[row].tolist(), labels(row)) for row in range(3)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    leaf = scores.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[name](leaf, RIGHT, None, K).sum(), leaf)
    step = 1e-5
    for row in range(3):
        for n in range(7):
            sides = []
            for side in (step, -step):
                moved = scores[row].tolist()
                moved[n] += side
                sides.append(slow(name, moved, labels(row)))
            difference = (sides[0] - sides[1]) / (2 * step)
            assert float(gradient[row, n]) == pytest.approx(difference, abs=1e-8)


def test_the_gradient_of_soft_top_k_is_the_papers() -> None:
    scores = scores_of()
    leaf = scores.clone().requires_grad_()
    (found,) = torch.autograd.grad(soft_top_k.soft_top_k_loss(leaf, RIGHT, None, K).sum(), leaf)
    p = (scores + soft_top_k.shift(scores, K)).sigmoid()
    weights = torch.zeros_like(scores)
    for row in range(3):
        weights[row, labels(row)] = 1 / len(labels(row))
    q, u = p * (1 - p), -weights * (1 - p)
    expected = u - q * u.sum(-1, keepdim=True) / q.sum(-1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0, 500.0])
def test_the_shift_selects_k(scale: float) -> None:
    scores = scores_of(scale)
    for k in (1, 3, 6):
        chosen = (scores + soft_top_k.shift(scores, k)).sigmoid().sum(-1)
        torch.testing.assert_close(chosen, torch.full_like(chosen, k), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_finite_where_scores_are_far_apart_or_nothing_is_asked(name: str) -> None:
    right = torch.cat([RIGHT, torch.full((1, 3), -1)])
    for scale in (0.0, 40.0):
        scores = torch.cat([scores_of(scale), scores_of(scale)[:1]]).float()
        leaf = scores.requires_grad_()
        value = LOSSES[name](leaf, right, None, K)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        assert not gradient[3].any()


@pytest.mark.parametrize("name", LOSSES)
def test_many_clients_at_once_have_the_gradients_of_each(name: str) -> None:
    scores = torch.stack([scores_of(), scores_of(1.0)])

    def total(one: Tensor) -> Tensor:
        return LOSSES[name](one, RIGHT, None, K).sum()

    together = vmap(grad(total))(scores)
    for client in range(2):
        torch.testing.assert_close(together[client], grad(total)(scores[client]))


def test_with_one_right_label_decoupled_softmax_is_softmax_is_cross_entropy() -> None:
    scores, one = scores_of(), torch.tensor([[2], [0], [6]])
    expected = torch.nn.functional.cross_entropy(scores, one[:, 0], reduction="none")
    for loss in (softmax.softmax_loss, decoupled_softmax.decoupled_softmax_loss):
        torch.testing.assert_close(loss(scores, one, None, K), expected)


@pytest.mark.parametrize("name", ["softmax", "decoupled_softmax"])
def test_labels_that_are_not_compared_do_not_matter(name: str) -> None:
    scores, known = scores_of(), torch.tensor([True] * 7)
    known[4] = False
    fewer = torch.cat([scores[:, :4], scores[:, 5:]], dim=1)
    moved = torch.where(RIGHT > 4, RIGHT - 1, RIGHT)
    found = LOSSES[name](scores, RIGHT, known, K)
    torch.testing.assert_close(found, LOSSES[name](fewer, moved, None, K))
