"""The learning rate of deep ReLU networks over their depth, by the protocol of arXiv 2305.07810.

A ReLU network without biases: inputs of 32 numbers with squared norm 32, weights N(0, 2 / inputs),
an output N(0, 1 / width^2); the loss (z - 1)^2 / 2 of one example; one SGD step with one rate for
all layers. The rate is that at which the mean square of the change of the last hidden
pre-activations is .01. The paper: it falls as depth^-1.5.

A step changes each weight matrix by one outer product, ``W' a = W a - rate * d (p . a)`` for its
backpropagated error ``d`` and its former input ``p``, so no changed matrix is ever written.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedsi.learning.suggested_rate import rate_of_change
from fedsi.seeds import Purpose, generator

INPUTS = 32
CHANGE = 0.01
"""Mean square of the change of the last hidden pre-activations."""
FIRST_RATE = 0.01

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DepthSlope:
    """Rates over depths, and the slope of their logarithms."""

    width: int
    networks: int
    rates: dict[int, float]
    """Geometric mean of the networks' rates by depth, the number of hidden layers."""
    slope: float
    """Least squares of log rate on log depth."""
    standard_error: float
    """Of the slope, over networks."""


@dataclass(frozen=True)
class Network:
    """A network at its first step."""

    weights: Sequence[Array]
    """One matrix for each hidden layer, ``[outputs, inputs]``."""
    inputs: Sequence[Array]
    """Input of each of them."""
    last: Array
    """Pre-activations of the last hidden layer."""
    errors: Sequence[Array]
    """Gradient of the loss with respect to each layer's pre-activations."""

    def changed(self, rate: float) -> float:
        """Return the mean square of the change of the last pre-activations by a step."""
        after, pre = self.inputs[0], self.last
        for weight, error, before in zip(self.weights, self.errors, self.inputs, strict=True):
            pre = weight @ after - rate * error * float(before @ after)
            after = np.maximum(pre, 0)
        return float(np.mean(np.square(pre - self.last)))


def draw_network(width: int, depth: int, rng: np.random.Generator) -> Network:
    """Draw a network and an example, and compute the gradient of its loss."""
    given = rng.standard_normal(INPUTS)
    given *= math.sqrt(INPUTS) / float(np.linalg.norm(given))
    sizes = [INPUTS, *[width] * depth]
    weights = [
        rng.standard_normal((outputs, inputs)) * math.sqrt(2 / inputs)
        for inputs, outputs in pairwise(sizes)
    ]
    readout = rng.standard_normal(width) / width
    inputs, pres = [given], []
    for weight in weights:
        pres.append(weight @ inputs[-1])
        inputs.append(np.maximum(pres[-1], 0))
    error = (float(readout @ inputs[-1]) - 1) * readout * (pres[-1] > 0)
    errors = [error]
    for weight, pre in zip(weights[:0:-1], pres[-2::-1], strict=True):
        errors.append((weight.T @ errors[-1]) * (pre > 0))
    return Network(weights, inputs[:-1], pres[-1], errors[::-1])


def measure_depth_slope(
    width: int = 512, depths: Sequence[int] = (4, 8, 16, 32), networks: int = 12, seed: int = 0
) -> DepthSlope:
    """Measure the rate of each network at each depth, and the slope over depth."""
    logs = np.log(
        [
            [
                rate_of_change(
                    draw_network(
                        width, depth, generator(seed, Purpose.INITIALISATION, depth, number)
                    ).changed,
                    CHANGE,
                    FIRST_RATE,
                )
                for depth in depths
            ]
            for number in range(networks)
        ]
    )
    slopes = np.polyfit(np.log(depths), logs.T, 1)[0]
    means = np.exp(logs.mean(0))
    return DepthSlope(
        width=width,
        networks=networks,
        rates=dict(zip(depths, means.tolist(), strict=True)),
        slope=float(slopes.mean()),
        standard_error=float(slopes.std(ddof=1) / math.sqrt(networks)),
    )
