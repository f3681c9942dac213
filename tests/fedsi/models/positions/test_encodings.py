"""Each encoding against the paper's formula, one number at a time."""

import math
from itertools import product
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsi.errors import UserError
from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Layout, Parameters
from fedsi.models.positions import fire, kerple, learned, t5
from fedsi.models.positions.table import ENCODINGS

BIASES = ["alibi", "t5", "kerple", "fire"]
HEADS = 3


def random_parameters(
    name: str, *axes: int, seed: int = 0, max_length: int = 9, fire_layers: Literal[1, 2] = 2
) -> Parameters:
    settings = ModelSettings(
        architecture="transformer",
        positions=name,
        embedding_size=HEADS * 4,
        heads=HEADS,
        max_length=max_length,
        fire_layers=fire_layers,
    )
    layout = Layout(ENCODINGS[name].shapes(settings))
    generator = torch.Generator().manual_seed(seed)
    return layout.views(torch.randn(*axes, layout.size, generator=generator, dtype=torch.float64))


def bias_of(name: str, parameters: Parameters, queries: Tensor, keys: Tensor) -> Tensor:
    function = ENCODINGS[name].bias
    assert function is not None
    return function(parameters, queries, keys, HEADS)


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def slow_alibi(_p: Parameters, i: int, j: int, head: int) -> float:
    return -(2 ** (-8 * (head + 1) / HEADS)) * (i - j)


def slow_t5(p: Parameters, i: int, j: int, head: int) -> float:
    n = i - j
    bucket = n if n < 16 else min(31, 16 + int(math.log(n / 16) / math.log(128 / 16) * 16 + 1e-9))
    return p[t5.TABLE][bucket, head].item()


def slow_kerple(p: Parameters, i: int, j: int, head: int) -> float:
    r1, r2 = (softplus(p[name][head].item()) for name in (kerple.STRENGTH, kerple.RATE))
    return -r1 * math.log(1 + r2 * (i - j))


def slow_fire(p: Parameters, i: int, j: int, head: int) -> float:
    c, longest = (softplus(p[name].item()) for name in (fire.CURVATURE, fire.THRESHOLD))
    values = [math.log(c * (i - j) + 1) / math.log(c * max(longest, i) + 1)]
    layers = fire.layers_of(p)
    for layer in layers:
        weight, shift = p[f"{layer}.weight"].tolist(), p[f"{layer}.bias"].tolist()
        sums = [
            shift[o] + sum(value * weight[k][o] for k, value in enumerate(values))
            for o in range(len(shift))
        ]
        values = sums if layer == layers[-1] else [max(0.0, s) for s in sums]
    return values[head]


SLOW = {"alibi": slow_alibi, "t5": slow_t5, "kerple": slow_kerple, "fire": slow_fire}


@pytest.mark.parametrize("name", BIASES)
@given(seed=st.integers(0, 999), first=st.integers(0, 140), count=st.integers(1, 3))
def test_biases_equal_their_formula(name: str, seed: int, first: int, count: int) -> None:
    parameters = random_parameters(name, seed=seed)
    queries, keys = torch.arange(first, first + count), torch.arange(first + count)
    fast = bias_of(name, parameters, queries, keys)
    assert fast.shape == (HEADS, count, first + count)
    for head, row, j in product(range(HEADS), range(count), {0, 1, first // 2, first}):
        if j <= first:
            slow = SLOW[name](parameters, first + row, j, head)
            assert fast[head, row, j].item() == pytest.approx(slow, abs=1e-10, rel=1e-10)


def test_fire_with_one_hidden_layer_equals_its_formula() -> None:
    parameters = random_parameters("fire", fire_layers=1)
    assert parameters["positions.second.weight"].shape == (fire.WIDTH, HEADS)
    positions = torch.arange(30)
    fast = bias_of("fire", parameters, positions, positions)
    for head, (i, j) in product(range(HEADS), [(0, 0), (3, 1), (9, 9), (29, 0), (29, 20)]):
        assert fast[head, i, j].item() == pytest.approx(slow_fire(parameters, i, j, head))


@pytest.mark.parametrize("name", BIASES)
def test_a_client_axis_is_as_many_separate_clients(name: str) -> None:
    parameters = random_parameters(name, 4)
    positions = torch.arange(30)
    together = bias_of(name, parameters, positions, positions)
    for client in range(4):
        alone = {key: value[client] for key, value in parameters.items()}
        expected = bias_of(name, alone, positions, positions)
        found = together[client] if parameters else together
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_t5_buckets_worked_out_by_hand() -> None:
    found = t5.buckets(torch.tensor([0, 15, 16, 17, 18, 19, 20, 21, 31, 32, 63, 64, 127, 999]))
    assert found.tolist() == [0, 15, 16, 16, 16, 17, 17, 18, 21, 21, 26, 26, 31, 31]


@given(size=st.integers(1, 9), first=st.integers(0, 50), seed=st.integers(0, 99))
def test_sinusoids_equal_their_formula(size: int, first: int, seed: int) -> None:
    vectors = torch.randn(2, 3, size, generator=torch.Generator().manual_seed(seed)).double()
    embed = ENCODINGS["sinusoidal"].embed
    assert embed is not None
    waves = embed({}, vectors, torch.arange(first, first + 3)) - vectors
    for row, k in product(range(3), range(size)):
        angle = (first + row) / 10000 ** ((k - k % 2) / size)
        expected = math.cos(angle) if k % 2 else math.sin(angle)
        assert waves[1, row, k].item() == pytest.approx(expected, abs=1e-12)


@given(pairs=st.integers(1, 4), first=st.integers(0, 50), seed=st.integers(0, 99))
def test_rotations_equal_their_formula(pairs: int, first: int, seed: int) -> None:
    heads = torch.randn(2, 3, 2 * pairs, generator=torch.Generator().manual_seed(seed)).double()
    rotate = ENCODINGS["rotary"].rotate
    assert rotate is not None
    turned = rotate(heads, torch.arange(first, first + 3))
    for row, k in product(range(3), range(pairs)):
        angle = (first + row) * 10000 ** (-2 * k / (2 * pairs))
        point = complex(*heads[1, row, 2 * k : 2 * k + 2].tolist())
        expected = point * complex(math.cos(angle), math.sin(angle))
        found = complex(*turned[1, row, 2 * k : 2 * k + 2].tolist())
        assert abs(found - expected) < 1e-12


def test_rotated_scores_depend_on_the_distance_only() -> None:
    rotate = ENCODINGS["rotary"].rotate
    assert rotate is not None
    q, k = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0)).double()
    scores = [
        (rotate(q, torch.tensor([i])) * rotate(k, torch.tensor([i - 5]))).sum()
        for i in (5, 17, 400)
    ]
    torch.testing.assert_close(scores[1:], [scores[0]] * 2, rtol=0, atol=1e-12)


def test_learned_positions_are_rows_of_a_table() -> None:
    parameters = random_parameters("learned", 2)
    vectors = torch.zeros(2, 3, 4, HEADS * 4, dtype=torch.float64)
    found = learned.embed(parameters, vectors, torch.arange(5, 9))
    for client, row, position in product(range(2), range(3), range(4)):
        assert torch.equal(
            found[client, row, position], parameters[learned.TABLE][client, 5 + position]
        )


def test_a_sequence_longer_than_the_table_is_refused() -> None:
    settings = ModelSettings(architecture="transformer", positions="learned", max_length=9)
    learned.check_length(settings, 9)
    with pytest.raises(UserError, match=r"10 tokens is longer than the 9 learned .*max_length"):
        learned.check_length(settings, 10)
    learned.check_length(settings.model_copy(update={"positions": "fire"}), 10)
