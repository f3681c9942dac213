"""The words' vectors: looked up, normalised, and updated from their gradients."""

import torch
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.kernels.cpu.output import Update
from fedsi.kernels.cpu.workspace import Workspace
from fedsi.models.layers import SMALLEST_SQUARE
from fedsi.models.parameters import Parameters


def look_up(
    settings: ModelSettings, named: Parameters, inputs: Tensor, space: Workspace
) -> tuple[Tensor, Tensor | None]:
    """Return the words' vectors, ``[positions, embedding]``, and what they were scaled by."""
    embedding = named["embedding"]
    vectors = space.take("vectors", len(inputs), embedding.shape[1])
    torch.index_select(embedding, 0, inputs, out=vectors)
    if settings.embedding_normalisation == "none":
        return vectors, None
    scale = vectors.square().mean(-1, keepdim=True).clamp_min_(SMALLEST_SQUARE).rsqrt_()
    return vectors.mul_(scale), scale


def train_embedding(
    settings: ModelSettings,
    into: Parameters,
    inputs: Tensor,
    looked_up: tuple[Tensor, Tensor | None],
    grad: Tensor,
    update: Update,
) -> None:
    """Update the embeddings; of a tied output after the output layer.

    Args:
        settings: Of the model.
        into: What is updated.
        inputs: Token ids, ``[positions]``.
        looked_up: What ``look_up`` returned.
        grad: With respect to the vectors, overwritten: ``[positions, embedding]``.
        update: How.
    """
    vectors, scale = looked_up
    if scale is not None:
        inner = (grad * vectors).mean(-1, keepdim=True)
        inner.mul_(scale < SMALLEST_SQUARE**-0.5)  # below the bound the scale is a constant
        grad.addcmul_(vectors, inner, value=-1).mul_(scale)
    if update.keep != 1.0 and not settings.tied_output:
        into["embedding"].mul_(update.keep)
    into["embedding"].index_add_(0, inputs, grad, alpha=update.rate)
