"""FIRE: a learned function of the distance relative to the query's position.

``b(i, j) = f(log(c (i - j) + 1) / log(c max(L, i) + 1))``, where f is a network with ReLU of
``model.fire_layers`` hidden layers of 32, and c > 0 and L > 0 are learned. The argument of f stays
in [0, 1] for any sequence length. The parameters hold x with ``c = log(1 + exp(x))``, and the same
for L. Initially c = 0.1 and ``L = model.max_length``, and f is drawn like torch's linear layers:
weights and biases uniform in +-1/sqrt(inputs of the layer). All layers of the model share f, c and
L (FIRE-S in the paper). The authors' listing has one hidden layer, and an L that begins at a
quarter of the training length.

Source: Li et al. (arXiv 2310.04418), equations 4 to 6.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedsi.experiment import ModelSettings
from fedsi.models.layers import dense
from fedsi.models.parameters import Parameters
from fedsi.models.positions.encoding import (
    Array,
    Encoding,
    Shapes,
    inverse_softplus,
    key_distances,
)

WIDTH = 32
FIRST_CURVATURE = 0.1
CURVATURE, THRESHOLD = "positions.curvature", "positions.threshold"
"""Parameter names of c and of L."""
_LAYERS = ("positions.first", "positions.second", "positions.third")


def layers_of(parameters: Parameters) -> list[str]:
    """Return the names of the layers of f, without ``.weight`` and ``.bias``."""
    return [layer for layer in _LAYERS if f"{layer}.weight" in parameters]


def _shapes(settings: ModelSettings) -> Shapes:
    shapes: Shapes = {CURVATURE: (1,), THRESHOLD: (1,)}
    sizes = (1, *[WIDTH] * settings.fire_layers, settings.heads)
    for layer, inputs, outputs in zip(_LAYERS, sizes, sizes[1:], strict=False):
        shapes |= {f"{layer}.weight": (inputs, outputs), f"{layer}.bias": (outputs,)}
    return shapes


def _draw(rng: np.random.Generator, name: str, settings: ModelSettings, shapes: Shapes) -> Array:
    if name in {CURVATURE, THRESHOLD}:
        value = FIRST_CURVATURE if name == CURVATURE else float(settings.max_length)
        # Beyond 30 both sides are equal to the last bit, and exp would overflow.
        return np.full(shapes[name], inverse_softplus(value) if value < 30 else value)
    inputs = shapes[f"{name.rpartition('.')[0]}.weight"][0]
    limit = 1.0 / np.sqrt(inputs)
    return rng.uniform(-limit, limit, shapes[name])


def bias(parameters: Parameters, queries: Tensor, keys: Tensor, _heads: int) -> Tensor:
    """Return ``[*, heads, m, n]``."""
    c = functional.softplus(parameters[CURVATURE]).unsqueeze(-1)
    threshold = functional.softplus(parameters[THRESHOLD]).unsqueeze(-1)
    longest = torch.maximum(threshold, queries[:, None].to(threshold.dtype))
    relative = (c * key_distances(queries, keys)).log1p() / (c * longest).log1p()
    values = relative.unsqueeze(-1)
    *hidden, last = layers_of(parameters)
    for layer in hidden:
        values = dense(values, parameters[f"{layer}.weight"], parameters[f"{layer}.bias"]).relu()
    values = dense(values, parameters[f"{last}.weight"], parameters[f"{last}.bias"])
    return values.movedim(-1, -3)


ENCODING = Encoding(
    label="FIRE",
    colour="#d62728",
    shapes=_shapes,
    draw=_draw,
    bias=bias,
    why_not="it divides distances by the query's position, and an id is none",
)
