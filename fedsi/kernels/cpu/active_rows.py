"""The feed-forward part ``top_k`` of one token, reading only the rows of its active groups."""

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.compiler import compiled
from fedsi.experiment import ModelSettings
from fedsi.models.feedforward.top_k import gates_of
from fedsi.models.parameters import Parameters

Array = NDArray[Any]


def active_feedforward(settings: ModelSettings, parameters: Parameters, x: Tensor) -> Tensor:
    """Return the same as the part's ``run`` for ``x [1, 1, embedding]``, without a gradient."""
    token = x.flatten()
    gates = gates_of(settings, token @ parameters["router"])
    result = torch.zeros_like(token)
    tensors = (result, token, gates, parameters["inner"], parameters["outer"])
    arrays = [one.detach().numpy() for one in tensors]
    _add_groups(*arrays, gelu=settings.activation == "gelu")
    return result.view_as(x)


@compiled
def _add_groups(
    result: Array, token: Array, gates: Array, inner: Array, outer: Array, *, gelu: bool
) -> None:
    """Add ``gate activation(inner row . token) outer row`` of each neuron with a gate above 0.

    Args:
        result: ``[size]``.
        token: ``[size]``.
        gates: ``[groups]``.
        inner: ``[neurons, size]``; neurons of a group are neighbours.
        outer: ``[neurons, size]``.
        gelu: Whether the activation is GELU instead of ReLU.
    """
    group = len(inner) // len(gates)
    for g in range(len(gates)):
        if gates[g] > 0:
            for row in range(group * g, group * g + group):
                weights = inner[row]
                total = token.dtype.type(0)
                for k in range(len(token)):
                    total += weights[k] * token[k]
                if gelu:
                    total *= token.dtype.type(0.5 * (1 + math.erf(total / math.sqrt(2.0))))
                elif total <= 0:
                    continue
                factor = total * gates[g]
                weights = outer[row]
                for k in range(len(token)):
                    result[k] += factor * weights[k]
