"""Adding an algorithm's pull to a step's gradient."""

import torch
from torch import Tensor

from fedsi.learning.algorithms.algorithm import Pull


def add_pull(gradient: Tensor, scale: float, parameters: Tensor, pull: Pull) -> float:
    """Add a pull to a gradient in place.

    Args:
        gradient: Becomes ``scale * gradient + pull``; unchanged if the pull is zero.
        scale: Factor of the gradient from clipping; the pull is not clipped.
        parameters: The parameters at which the pull is evaluated, ``[parameters]``.
        pull: The algorithm's pull.

    Returns:
        The factor that is still to be applied to the gradient.
    """
    if pull.adds_nothing:
        return scale
    if scale != 1.0:
        gradient.mul_(scale)
    gradient.add_(parameters, alpha=pull.strength)
    add_vector(gradient, pull, 1.0)
    return 1.0


def add_vector(target: Tensor, pull: Pull, factor: float) -> None:
    """Add ``factor * pull.vector`` in place, if there is a vector."""
    if pull.vector is not None:
        target.add_(torch.from_numpy(pull.vector), alpha=factor)
