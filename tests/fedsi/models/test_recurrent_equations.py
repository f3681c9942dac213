"""Recurrent cells against a slow reference, and the consequences of scale invariance."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsi.models.recurrent import CELLS, max_normalise, max_normalised_relu, recurrence

Rows = list[list[float]]
ARCHITECTURES = sorted(CELLS)
sizes = st.integers(1, 5)


def weights(
    embedding: int, hidden: int, *axes: int, seed: int = 0, gates: int = 3
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(embedding, gates * hidden), (hidden, gates * hidden), (gates * hidden,)]
    drawn = [
        torch.randn(*axes, *shape, generator=generator, dtype=torch.float64) for shape in shapes
    ]
    return drawn[0], drawn[1], drawn[2]


def inputs_of(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def weights_of(architecture: str, *sizes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    return weights(*sizes, seed=seed, gates=CELLS[architecture].gates)


def slow_cell(
    xs: list[list[float]], w: Tensor, u: Tensor, b: Tensor, p: Tensor, architecture: str
) -> list[list[float]]:
    """One sequence, one number at a time, as the equations are printed."""
    if architecture == "gru":
        return slow_gru(xs, w, u, b, p)
    hidden, states = p.shape
    si, gates = architecture == "si_cifg", CELLS[architecture].gates

    def largest(values: list[float]) -> float:
        return max(abs(v) for v in values) or 1.0

    def gate(values: list[float]) -> list[float]:
        if not si:
            return [1 / (1 + math.exp(-v)) for v in values]
        positive = [max(v, 0.0) for v in values]
        return [v / largest(positive) for v in positive]

    def squash(values: list[float]) -> list[float]:
        if not si:
            return [math.tanh(v) for v in values]
        return [v / largest(values) for v in values]

    c = [0.0] * hidden
    h = [0.0] * states
    outputs = []
    for x in xs:
        pre = [
            b[j].item()
            + sum(x[i] * w[i, j].item() for i in range(len(x)))
            + sum(h[i] * u[i, j].item() for i in range(states))
            for j in range(gates * hidden)
        ]
        f, o, g = (
            gate(pre[:hidden]),
            gate(pre[hidden : 2 * hidden]),
            squash(pre[2 * hidden : 3 * hidden]),
        )
        enter = gate(pre[3 * hidden :]) if gates == 4 else [1 - one for one in f]
        c = [f[i] * c[i] + enter[i] * g[i] for i in range(hidden)]
        t = squash(c)
        h = [sum(o[i] * t[i] * p[i, j].item() for i in range(hidden)) for j in range(states)]
        outputs.append(h)
    return outputs


def slow_gru(
    xs: list[list[float]], w: Tensor, u: Tensor, b: Tensor, p: Tensor
) -> list[list[float]]:
    hidden, states = p.shape

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    kept, state, outputs = [0.0] * hidden, [0.0] * states, []
    for x in xs:
        given = [
            b[j].item() + sum(x[i] * w[i, j].item() for i in range(len(x)))
            for j in range(3 * hidden)
        ]
        fed = [sum(state[i] * u[i, j].item() for i in range(states)) for j in range(3 * hidden)]
        for i in range(hidden):
            keep = sigmoid(given[i] + fed[i])
            reset = sigmoid(given[hidden + i] + fed[hidden + i])
            new = math.tanh(given[2 * hidden + i] + reset * fed[2 * hidden + i])
            kept[i] = keep * kept[i] + (1 - keep) * new
        state = [sum(kept[i] * p[i, j].item() for i in range(hidden)) for j in range(states)]
        outputs.append(state)
    return outputs


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(batch=sizes, time=sizes, embedding=sizes, hidden=sizes, seed=st.integers(0, 999))
def test_equals_the_printed_equations(
    architecture: str, batch: int, time: int, embedding: int, hidden: int, seed: int
) -> None:
    w, u, b = weights_of(architecture, embedding, hidden, seed=seed)
    x = inputs_of(batch, time, embedding, seed=seed + 1)
    fast = recurrence(CELLS[architecture], x, w, u, b)[0]
    identity = torch.eye(hidden)
    slow = [slow_cell(row.tolist(), w, u, b, identity, architecture) for row in x]
    torch.testing.assert_close(fast, torch.tensor(slow, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(hidden=sizes, state=sizes, seed=st.integers(0, 999))
def test_a_projected_recurrence_equals_the_printed_equations(
    architecture: str, hidden: int, state: int, seed: int
) -> None:
    w, _, b = weights_of(architecture, 2, hidden, seed=seed)
    u = inputs_of(state, w.shape[1], seed=seed + 2)
    p = inputs_of(hidden, state, seed=seed + 3)
    x = inputs_of(2, 4, 2, seed=seed + 1)
    fast = recurrence(CELLS[architecture], x, w, u, b, p)[0]
    slow = [slow_cell(row.tolist(), w, u, b, p, architecture) for row in x]
    torch.testing.assert_close(fast, torch.tensor(slow, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_client_axis_is_as_many_separate_clients(architecture: str) -> None:
    w, u, b = weights_of(architecture, 4, 5, 3)
    x = inputs_of(3, 2, 6, 4)
    together = recurrence(CELLS[architecture], x, w, u, b)[0]
    assert together.shape == (3, 2, 6, 5)
    for client in range(3):
        alone = recurrence(CELLS[architecture], x[client], w[client], u[client], b[client])[0]
        torch.testing.assert_close(together[client], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("axes", [(), (2,)])
def test_gradients_against_finite_differences(architecture: str, axes: tuple[int, ...]) -> None:
    arguments = [inputs_of(*axes, 2, 3, 3), *weights_of(architecture, 3, 4, *axes)]
    for argument in arguments:
        argument.requires_grad_()

    def run(*tensors: Tensor) -> Tensor:
        return recurrence(CELLS[architecture], *tensors)[0]

    assert torch.autograd.gradcheck(run, arguments, eps=1e-7, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 0.5, 7.0, 1e4])
def test_si_cifg_is_invariant_to_the_scale_of_its_parameters(scale: float) -> None:
    x = inputs_of(3, 8, 6)
    parameters = weights(6, 10)
    cell = CELLS["si_cifg"]
    plain = recurrence(cell, x, *parameters)[0]
    scaled = recurrence(cell, x, *(scale * p for p in parameters))[0]
    torch.testing.assert_close(scaled, plain, rtol=0, atol=1e-12)
    cifg = CELLS["cifg"]
    changed = recurrence(cifg, x, *(scale * p for p in parameters))[0]
    assert (changed - recurrence(cifg, x, *parameters)[0]).abs().max() > 1e-2


def loss_gradients(architecture: str, scale: float = 1.0) -> tuple[list[Tensor], list[Tensor]]:
    parameters = [(scale * p).requires_grad_() for p in weights(6, 10)]
    w, u, b = parameters
    output = recurrence(CELLS[architecture], inputs_of(3, 8, 6), w, u, b)[0]
    loss = (output * inputs_of(*output.shape, seed=5)).sum()
    return parameters, list(torch.autograd.grad(loss, parameters))


def test_its_gradient_is_orthogonal_to_its_parameters() -> None:
    for architecture, orthogonal in (("si_cifg", True), ("cifg", False)):
        parameters, gradients = (
            torch.cat([tensor.detach().flatten() for tensor in tensors])
            for tensors in loss_gradients(architecture)
        )
        cosine = torch.nn.functional.cosine_similarity(parameters, gradients, dim=0)
        assert (abs(float(cosine)) < 1e-12) == orthogonal


def test_its_gradient_falls_as_its_parameters_grow() -> None:
    """With the norm of SGD's parameters only growing, the effective learning rate falls."""
    _, plain = loss_gradients("si_cifg")
    _, scaled = loss_gradients("si_cifg", scale=10.0)
    for small, large in zip(scaled, plain, strict=True):
        torch.testing.assert_close(10.0 * small, large, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("normalise", [max_normalise, max_normalised_relu])
def test_rows_without_a_positive_entry_stay_finite(normalise: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([[0.0, 0.0], [-1.0, -2.0], [3.0, -6.0]], requires_grad=True)
    y = normalise(x)
    assert y[0].tolist() == [0.0, 0.0]
    assert y[2].tolist() == ([0.5, -1.0] if normalise is max_normalise else [1.0, 0.0])
    y[1:].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
