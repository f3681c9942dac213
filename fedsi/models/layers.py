"""Layers shared by all architectures. Parameters are passed in and may have a client axis."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Parameters

Array = NDArray[np.float64]

SMALLEST_SQUARE = 1e-12
"""Lower bound of a word vector's mean square, so that a vector of zeros stays zero."""

EMBEDDING_RANGE = {"default": 0.5, "mimetic": 0.5, "paper": 0.05}


def dense(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight + bias`` with an optional client axis on all three.

    Args:
        x: ``[*, batch, time, in]``, or ``[rows, in]`` without client axis.
        weight: ``[*, in, out]``.
        bias: ``[*, out]``.

    Returns:
        The shape of ``x`` with ``out`` as the last axis.
    """
    single = x.dim() == 2
    rows = (x if single else x.flatten(-3, -2)) @ weight
    if bias is not None:
        rows = rows + bias.unsqueeze(-2)
    result: Tensor = rows if single else rows.unflatten(-2, x.shape[-3:-1])
    return result


def embed_tokens(settings: ModelSettings, parameters: Parameters, inputs: Tensor) -> Tensor:
    """Return word vectors, ``[*, batch, time, embedding]``, for ids ``[*, batch, time]``."""
    vectors = _look_up(parameters["embedding"], inputs)
    return rms_normalise(vectors) if settings.embedding_normalisation == "rms" else vectors


def output_logits(settings: ModelSettings, parameters: Parameters, states: Tensor) -> Tensor:
    """Return the logits for the output layer's inputs.

    Args:
        settings: The model.
        parameters: Named tensors, ``[*, ...]``.
        states: ``[*, batch, time, size]``, or ``[targets, size]`` without client axis.

    Returns:
        The shape of ``states`` with the vocabulary as the last axis.
    """
    weight, bias = output_matrix(settings, parameters)
    return dense(states, weight, bias)


def features_themselves(parameters: Parameters, features: Tensor) -> Tensor:  # noqa: ARG001
    """Return the features, for an output layer that reads them as they are."""
    return features


def output_matrix(settings: ModelSettings, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """Return the output layer's weight, ``[*, size, vocabulary]``, and its bias."""
    weight = (
        parameters["embedding"].transpose(-1, -2)
        if settings.tied_output
        else parameters["output.weight"]
    )
    return weight, parameters["output.bias"]


def _look_up(embedding: Tensor, ids: Tensor) -> Tensor:
    """Return rows of ``[*, vocabulary, size]`` for ids ``[*, batch, time]``."""
    if embedding.dim() == 2:
        return functional.embedding(ids, embedding)
    clients, vocabulary, _ = embedding.shape
    offsets = torch.arange(clients, device=ids.device).view(-1, 1, 1) * vocabulary
    return functional.embedding(ids + offsets, embedding.flatten(0, 1))


def rms_normalise(x: Tensor) -> Tensor:
    """Divide by the root mean square along the last axis."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True).clamp_min(SMALLEST_SQUARE))


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw a matrix, ``[in, out]``, uniform in ``+-sqrt(6 / (in + out))``."""
    limit = math.sqrt(6.0 / sum(shape))
    return rng.uniform(-limit, limit, shape)
