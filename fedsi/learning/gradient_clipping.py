"""Gradient clipping of a local step: to a fixed norm, or relative to the parameters' norm.

Relative clipping (Li et al., "Robust Training of Neural Networks Using Scale Invariant
Architectures", arXiv 2202.00980) is for scale-invariant models trained with weight decay lambda. It
clips the gradient's norm to ``c sqrt(2 lambda / eta) ||theta||``.
"""

import math

import torch
from torch import Tensor

from fedsi.experiment import ClientSettings


def is_clipped(settings: ClientSettings) -> bool:
    """Whether a step needs the norm of its gradient."""
    return settings.gradient_clip is not None or settings.relative_clip is not None


def step_scale(
    settings: ClientSettings, learning_rate: float, gradient: Tensor, parameters: Tensor
) -> float:
    """Return the clipping factor of a step's gradient, at most 1; NaN for a norm of NaN.

    Args:
        settings: The settings of local training.
        learning_rate: The learning rate of the round.
        gradient: Gradient of the mean loss, ``[parameters]``.
        parameters: Parameters before the step and its weight decay, ``[parameters]``.
    """
    if settings.gradient_clip is not None:
        limit = settings.gradient_clip
    elif settings.relative_clip is not None:
        # At a rate of 0, which a schedule may end with, a step of any length has no effect.
        ratio = math.sqrt(2 * settings.weight_decay / learning_rate) if learning_rate else math.inf
        limit = settings.relative_clip * ratio * float(torch.linalg.vector_norm(parameters))
    else:
        return 1.0
    norm = float(torch.linalg.vector_norm(gradient))
    return 1.0 if norm <= limit else limit / norm
