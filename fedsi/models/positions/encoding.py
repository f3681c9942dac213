"""The interface of a position encoding: parameters, and up to three places where it acts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Parameters

Array = NDArray[np.float64]
Shapes = dict[str, tuple[int, ...]]


def no_shapes(_settings: ModelSettings) -> Shapes:
    """Return no parameters."""
    return {}


def zeros(_rng: np.random.Generator, name: str, _settings: ModelSettings, shapes: Shapes) -> Array:
    """Return a parameter's initial value, zero."""
    return np.zeros(shapes[name])


@dataclass(frozen=True)
class OnIds:
    """The same places of an encoding for tokens with ids from their task instead of positions.

    Ids are int64 ``[batch, time]``, -1 for a token without one, in any order: the id of a key may
    be larger than that of a query after it. Parameters have no client axis.
    """

    embed: Callable[[Parameters, Tensor, Tensor], Tensor] | None = None
    """``(parameters, vectors [batch, time, size], ids)`` -> new vectors."""
    rotate: Callable[[Tensor, Tensor], Tensor] | None = None
    """``(queries or keys [batch, heads, time, head size], ids)`` -> rotated queries or keys."""
    bias: Callable[[Parameters, Tensor, int], Tensor] | None = None
    """``(parameters, ids, heads)`` -> bias of the scores, ``[batch, heads, time, time]``."""
    several: bool = True
    """Whether it can encode several streams of ids: their effects are added."""


@dataclass(frozen=True)
class Encoding:
    """A position encoding. All layers share its parameters; parts that it lacks are None.

    Positions count from 0. The star in a shape is an optional client axis.
    """

    label: str
    """Its name in reports."""
    colour: str
    """The colour of its lines in figures."""
    shapes: Callable[[ModelSettings], Shapes] = no_shapes
    """Names (``positions...``) and shapes of its parameters."""
    draw: Callable[[np.random.Generator, str, ModelSettings, Shapes], Array] = zeros
    """The initial value of one parameter: ``(generator, name, settings, shapes)``."""
    embed: Callable[[Parameters, Tensor, Tensor], Tensor] | None = None
    """``(parameters, vectors [*, batch, time, size], positions [time])`` -> new vectors."""
    rotate: Callable[[Tensor, Tensor], Tensor] | None = None
    """``(queries or keys [..., time, head size], positions [time])`` -> rotated queries or keys."""
    bias: Callable[[Parameters, Tensor, Tensor, int], Tensor] | None = None
    """``(parameters, query positions [m], key positions [n], heads)`` -> bias of the scores, ``[*,
    heads, m, n]``; entries of keys after their query are ignored."""
    on_ids: OnIds | None = None
    """Its effect with ids from the task; None if it is not defined for them."""
    why_not: str = ""
    """Why it is not, as in "its distances are relative to the query's position"."""


def key_distances(queries: Tensor, keys: Tensor) -> Tensor:
    """Return the distance of each key before each query, ``[m, n]``; 0 for keys after it."""
    return (queries[:, None] - keys).clamp_min(0)


def id_differences(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return key minus query of all pairs of ids, and whether both tokens have one.

    Args:
        ids: ``[batch, time]``, -1 for a token without an id.

    Returns:
        Two tensors, ``[batch, 1, time, time]``, queries before keys.
    """
    keys, queries = ids[:, None, None, :], ids[:, None, :, None]
    return keys - queries, (keys >= 0) & (queries >= 0)


def inverse_softplus(value: float | Array) -> Array:
    """Return x with ``log(1 + exp(x)) = value``."""
    return np.asarray(np.log(np.expm1(value)), np.float64)


def frequencies(size: int, device: torch.device) -> Tensor:
    """Return ``10000^(-2 k / size)`` for each pair k of ``size`` entries, float64."""
    exponents = torch.arange(0, size, 2, dtype=torch.float64, device=device) / size
    return torch.pow(torch.tensor(10_000.0, dtype=torch.float64, device=device), -exponents)


ENCODING = Encoding(label="no positions", colour="#333333", on_ids=OnIds())
"""``none``: word order by the causal mask alone (Kazemnejad et al., arXiv 2305.19466)."""
