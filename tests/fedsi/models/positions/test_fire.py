"""FIRE can represent ALiBi, T5's buckets and Kerple (theorem 3.1 of its paper): fitted here."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Layout, Parameters
from fedsi.models.positions.table import ENCODINGS

HEADS = 2
LENGTH = 40
SETTINGS = ModelSettings(
    architecture="transformer", embedding_size=4 * HEADS, heads=HEADS, max_length=LENGTH
)
QUERIES = torch.arange(LENGTH - 1, 0, -6)
KEYS = torch.arange(LENGTH)
CAUSAL = QUERIES[:, None] >= KEYS


def drawn(name: str) -> Parameters:
    encoding, rng = ENCODINGS[name], np.random.default_rng(1)
    shapes = encoding.shapes(SETTINGS)
    return {key: torch.from_numpy(encoding.draw(rng, key, SETTINGS, shapes)) for key in shapes}


def bias_of(name: str, parameters: Parameters) -> Tensor:
    function = ENCODINGS[name].bias
    assert function is not None
    return function(parameters, QUERIES, KEYS, HEADS)[:, CAUSAL]


def target_of(name: str) -> Tensor:
    parameters = drawn(name)
    if name == "t5":
        generator = torch.Generator().manual_seed(2)
        table = parameters["positions.table"]
        steps = torch.randn(*table.shape, generator=generator, dtype=torch.float64)
        parameters["positions.table"] = -0.3 * steps.abs().cumsum(0)
    return bias_of(name, parameters)


def fitted(target: Tensor) -> Tensor:
    layout = Layout(ENCODINGS["fire"].shapes(SETTINGS))
    flat = torch.cat([p.flatten() for p in drawn("fire").values()]).requires_grad_()
    optimizer = torch.optim.LBFGS([flat], max_iter=250, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = (bias_of("fire", layout.views(flat)) - target).square().mean()
        error.backward()
        return error

    optimizer.step(loss)
    return bias_of("fire", layout.views(flat.detach()))


@pytest.mark.parametrize(("name", "error"), [("alibi", 0.01), ("kerple", 0.01), ("t5", 0.1)])
def test_fire_can_be_any_of_the_others(name: str, error: float) -> None:
    target = target_of(name)
    missed = (fitted(target) - target).square().mean().sqrt()
    assert missed < error * target.std()


def test_the_relative_distance_uses_the_larger_of_threshold_and_query() -> None:
    """With the smaller of the two, early queries would leave the range that f is learned on."""
    parameters = drawn("fire")
    positions = torch.arange(4 * LENGTH)
    first = parameters["positions.first.weight"]
    # f becomes the identity: one path of weight 1 through both layers.
    for key, value in parameters.items():
        if ".first." in key or ".second." in key or ".third." in key:
            value.zero_()
    first[0, 0] = 1.0
    parameters["positions.second.weight"][0, 0] = 1.0
    parameters["positions.third.weight"][0] = 1.0
    function = ENCODINGS["fire"].bias
    assert function is not None
    relative = function(parameters, positions, positions, HEADS)[0]
    assert float(relative.min()) >= 0
    assert float(relative.max()) == pytest.approx(1.0)
    torch.testing.assert_close(relative[LENGTH:, 0], torch.ones(3 * LENGTH, dtype=torch.float64))
    assert (relative[1:LENGTH, 0] < 1).all()
