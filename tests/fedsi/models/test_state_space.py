"""The scan of Mamba-2 against the recurrence, token by token in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedsi.models.state_space import causal_convolution, scan

BATCH, HEADS, HEAD, STATE = 2, 3, 4, 5


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


Given = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def draw(time: int, seed: int, *axes: int) -> Given:
    torch.manual_seed(seed)
    return (
        random(*axes, BATCH, time, HEADS, HEAD),
        random(*axes, BATCH, time, HEADS).exp(),
        random(*axes, HEADS).exp(),
        random(*axes, BATCH, time, STATE),
        random(*axes, BATCH, time, STATE),
    )


def slow_scan(given_values: Given, state: Tensor) -> tuple[Tensor, Tensor]:
    """Take one step of the recurrence after the other, for each sequence and head."""
    values, steps, rates, writes, reads = given_values
    state, outputs = state.clone(), torch.zeros_like(values)
    for row in range(BATCH):
        for head in range(HEADS):
            s = state[row, head]
            for t in range(values.shape[1]):
                dt = steps[row, t, head]
                written = torch.outer(writes[row, t], values[row, t, head])
                s = (-rates[head] * dt).exp() * s + dt * written
                outputs[row, t, head] = s.T @ reads[row, t]
            state[row, head] = s
    return outputs, state


@settings(max_examples=25, deadline=None)
@given(
    time=st.integers(1, 9),
    chunk=st.one_of(st.none(), st.integers(1, 10)),
    seed=st.integers(0, 99),
    continues=st.booleans(),
)
def test_every_chunk_gives_the_recurrence(
    time: int, chunk: int | None, seed: int, continues: bool
) -> None:
    given_values = draw(time, seed)
    before = random(BATCH, HEADS, STATE, HEAD) if continues else None
    start = torch.zeros(BATCH, HEADS, STATE, HEAD).double() if before is None else before
    outputs, state = scan(*given_values, before, chunk=chunk)
    expected, last = slow_scan(given_values, start)
    torch.testing.assert_close(outputs, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_gradient_is_that_of_the_recurrence(chunk: int | None) -> None:
    leaves = draw(5, 1)
    for each in leaves:
        each.requires_grad_()
    start = torch.zeros(BATCH, HEADS, STATE, HEAD).double()
    weights = random(BATCH, 5, HEADS, HEAD)
    values, steps, rates, writes, reads = leaves
    loss = (weights * scan(*leaves, chunk=chunk)[0]).sum()
    found = torch.autograd.grad(loss, leaves)
    loss = torch.zeros((), dtype=torch.float64)
    state = start
    for t in range(5):
        written = writes[:, t, None, :, None] * values[:, t, :, None]
        dt = steps[:, t, :, None, None]
        state = (-rates[:, None, None] * dt).exp() * state + dt * written
        loss = loss + (weights[:, t] * (state * reads[:, t, None, :, None]).sum(-2)).sum()
    expected = torch.autograd.grad(loss, leaves)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


def test_large_decays_neither_overflow_nor_lose_the_gradient() -> None:
    values, steps, rates, writes, reads = (each.float() for each in draw(70, 2))
    rates = (rates * 1e3).requires_grad_()
    outputs, state = scan(values, steps, rates, writes, reads)
    (gradient,) = torch.autograd.grad(outputs.sum(), rates)
    assert outputs.isfinite().all()
    assert state.isfinite().all()
    assert gradient.isfinite().all()


def test_the_convolution_sees_a_token_and_those_before() -> None:
    torch.manual_seed(0)
    x, weight, bias = random(2, 6, 3), random(4, 3), random(3)
    found, tail = causal_convolution(x, weight, bias)
    for t in range(6):
        expected = bias + sum(
            weight[3 - back] * x[:, t - back] for back in range(4) if t - back >= 0
        )
        torch.testing.assert_close(found[:, t], expected)
    assert torch.equal(tail, x[:, 3:])
    pieces = causal_convolution(x[:, :2], weight, bias)
    again, _ = causal_convolution(x[:, 2:], weight, bias, pieces[1])
    torch.testing.assert_close(torch.cat([pieces[0], again], 1), found)
