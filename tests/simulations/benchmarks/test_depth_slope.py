"""The slope of the learning rate over depth, and the step by outer products against autograd."""

import numpy as np
import pytest
import torch

from simulations.benchmarks.depth_slope import draw_network, measure_depth_slope


def test_the_slope_is_that_of_the_paper() -> None:
    found = measure_depth_slope(depths=(4, 8, 16), networks=8)
    assert -1.7 < found.slope < -1.3
    assert found.standard_error < 0.15
    assert found.rates[4] > 4 * found.rates[16]


def test_a_step_by_outer_products_is_that_of_autograd() -> None:
    network = draw_network(6, 4, np.random.default_rng(3))
    readout = np.random.default_rng(3)
    readout.standard_normal(32)
    for rows, columns in ((6, 32), (6, 6), (6, 6), (6, 6)):
        readout.standard_normal((rows, columns))
    output = torch.from_numpy(readout.standard_normal(6) / 6)
    leaves = [torch.from_numpy(w).requires_grad_() for w in network.weights]

    def last(weights: list[torch.Tensor]) -> torch.Tensor:
        layer = torch.from_numpy(network.inputs[0])
        for weight in weights:
            pre = weight @ layer
            layer = pre.relu()
        return pre

    loss = (output @ last(leaves).relu() - 1) ** 2 / 2
    gradients = torch.autograd.grad(loss, leaves)
    for rate in (0.01, 0.5):
        moved = [w.detach() - rate * g for w, g in zip(leaves, gradients, strict=True)]
        change = (last(moved) - last([w.detach() for w in leaves])).square().mean()
        assert network.changed(rate) == pytest.approx(float(change), rel=1e-9)
