"""Word embeddings in a fused step: lookup, normalisation, and update from gradients."""

import torch
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.kernels.cpu.output import UpdateRule
from fedsi.kernels.cpu.workspace import Workspace
from fedsi.models.layers import SMALLEST_SQUARE
from fedsi.models.parameters import Parameters


def look_up(
    settings: ModelSettings, named: Parameters, inputs: Tensor, space: Workspace
) -> tuple[Tensor, Tensor | None]:
    """Return the word vectors, ``[positions, embedding]``, and the factors that normalised them."""
    embedding = named["embedding"]
    vectors = space.take("vectors", inputs.shape[0], embedding.shape[1])
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
    update: UpdateRule,
) -> None:
    """Update the embeddings; if the output is tied, call this after the output layer's update.

    Args:
        settings: The model's settings.
        into: The parameters to update.
        inputs: Token ids, ``[positions]``.
        looked_up: The result of ``look_up``.
        grad: Gradient with respect to the vectors, ``[positions, embedding]``; overwritten.
        update: The update rule.
    """
    vectors, scale = looked_up
    if scale is not None:
        inner = (grad * vectors).mean(-1, keepdim=True)
        inner.mul_(scale < SMALLEST_SQUARE**-0.5)  # below the bound the scale is a constant
        grad.addcmul_(vectors, inner, value=-1).mul_(scale)
    if update.keep != 1.0 and not settings.tied_output:
        into["embedding"].mul_(update.keep)
    into["embedding"].index_add_(0, inputs, grad, alpha=update.rate)
