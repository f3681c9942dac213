"""The pull of an algorithm, added to a step's gradient."""

import torch
from torch import Tensor

from fedsi.learning.algorithms.algorithm import Pull


def add_pull(gradient: Tensor, scale: float, parameters: Tensor, pull: Pull) -> float:
    """Add a pull to a gradient in place.

    Args:
        gradient: Becomes ``scale * gradient + pull``; left as it is if the pull adds nothing.
        scale: What clipping multiplies the gradient by; the pull is not clipped.
        parameters: Where the pull is taken, ``[parameters]``.
        pull: The algorithm's.

    Returns:
        What the gradient is still to be multiplied by.
    """
    if pull.adds_nothing:
        return scale
    if scale != 1.0:
        gradient.mul_(scale)
    gradient.add_(parameters, alpha=pull.strength)
    add_vector(gradient, pull, 1.0)
    return 1.0


def add_vector(target: Tensor, pull: Pull, factor: float) -> None:
    """Add ``factor * pull.vector`` in place; nothing is read if there is none."""
    if pull.vector is not None:
        target.add_(torch.from_numpy(pull.vector), alpha=factor)
