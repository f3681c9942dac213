"""A feed-forward part of which each token uses only a few groups of neurons.

A small router scores groups of 16 neurons. With the mean m and the standard deviation s of a
token's scores over the groups, and the quantile q of the standard normal distribution that a share
``model.active_share`` lies above::

    gate_g = c relu((x R_g - m) / s - q)
    y = sum_g gate_g activation(x W_inner,g) W_outer,g

so about that share of the groups has a gate above 0 (exactly so for scores that are normally
distributed), and no sorting is needed. The constant c makes the gates' mean square 1 for such
scores, so that the part starts as large as the dense one.

The gates are continuous in x and all parameters and their gradient is autograd's, so the router is
trained with everything else, by plain SGD on clients too. They do not change if R is multiplied by
a > 0: the gradient is orthogonal to R, in every Transformer. The part is homogeneous of degree 1 in
``outer`` and, with ReLU, in ``inner``, as the dense one is.

Source: the threshold of You et al., Spark Transformer (arXiv 2506.06644), section 3, there for
single neurons and with scores that are not divided by s; groups and the standardised gate are ours.
A matrix's rows are neurons, so that a group is one piece of memory.
"""

import math
from functools import cache
from statistics import NormalDist

import torch
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.models.feedforward.part import ACTIVATIONS, FeedForwardPart, Shapes
from fedsi.models.feedforward.table import GROUP
from fedsi.models.layers import dense
from fedsi.models.parameters import Parameters

SMALLEST_VARIANCE = 1e-24
"""Lower bound of the scores' variance, so that equal scores have no gate above 0."""


@cache
def gate_constants(share: float) -> tuple[float, float]:
    """Return q and c of the module's docstring.

    ``E[relu(z - q)^2] = (1 + q^2) P(z > q) - q phi(q)`` for a standard normal z with density phi.

    Args:
        share: The share of a normal distribution above q.
    """
    q = NormalDist().inv_cdf(1 - share)
    square = (1 + q * q) * share - q * NormalDist().pdf(q)
    return q, 1 / math.sqrt(square)


def gates_of(settings: ModelSettings, scores: Tensor) -> Tensor:
    """Return the gate of each group, at least 0, for scores ``[..., groups]``."""
    q, factor = gate_constants(settings.active_share)
    centred = scores - scores.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True).clamp_min(SMALLEST_VARIANCE)
    return factor * torch.relu(centred * variance.rsqrt() - q)


def _shapes(settings: ModelSettings) -> Shapes:
    size, inner = settings.embedding_size, settings.feedforward_size
    return {"router": (size, inner // GROUP), "inner": (inner, size), "outer": (inner, size)}


def _run(settings: ModelSettings, parameters: Parameters, x: Tensor) -> Tensor:
    gates = gates_of(settings, dense(x, parameters["router"]))
    inner = ACTIVATIONS[settings.activation](dense(x, parameters["inner"].transpose(-1, -2)))
    gated = inner.unflatten(-1, (-1, GROUP)) * gates.unsqueeze(-1)
    return dense(gated.flatten(-2), parameters["outer"])


def _choices(settings: ModelSettings, parameters: Parameters, x: Tensor) -> Tensor:
    return gates_of(settings, dense(x, parameters["router"])) > 0


PART = FeedForwardPart(shapes=_shapes, run=_run, choices=_choices)
