"""Position encodings in a fused step, with autograd for their learned parts.

An encoding's own arithmetic is over ``[time, size]`` or ``[heads, time, time]``, a thousandth of a
step's. Autograd therefore differentiates it, starting from the gradient of the vectors added to
words or of the bias.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.kernels.cpu.output import UpdateRule
from fedsi.models.parameters import Parameters
from fedsi.models.positions.learned import check_length
from fedsi.models.positions.table import ENCODINGS


@dataclass(frozen=True)
class PositionTrace:
    """The effects of an encoding on the positions of a step; None for those it does not have."""

    leaves: Parameters
    """The encoding's parameters, as leaves of autograd's graph."""
    added: Tensor | None
    """Added to the words' vectors, ``[longest, size]``."""
    bias: Tensor | None
    """Added to the scores, ``[heads, longest, longest]``."""
    turns: Tensor | None
    """Cosine and sine, side by side, of the angles by which pairs of queries and keys are rotated:
    ``[longest, head size]``."""

    @property
    def has_learned_bias(self) -> bool:
        """Whether the gradient with respect to the bias is needed."""
        return self.bias is not None and self.bias.requires_grad


def trace_positions(settings: ModelSettings, named: Parameters, longest: int) -> PositionTrace:
    """Apply a model's encoding to positions from 0 on.

    Args:
        settings: The model's settings.
        named: Its parameters.
        longest: Number of positions.

    Raises:
        UserError: There are more positions than learned encodings.
    """
    check_length(settings, longest)
    encoding = ENCODINGS[settings.positions]
    leaves = {
        name: value.detach().clone().requires_grad_()
        for name, value in named.items()
        if name.startswith("positions.")
    }
    places = torch.arange(longest)
    nothing = named["embedding"].new_zeros(1, longest, settings.embedding_size)
    with torch.enable_grad():
        added = encoding.embed(leaves, nothing, places)[0] if encoding.embed else None
        bias = encoding.bias(leaves, places, places, settings.heads) if encoding.bias else None
        bias = None if bias is None else bias.to(nothing.dtype)
    turns = None
    if encoding.rotate:
        # Rotating the point (1, 0) gives the cosine and the sine.
        pairs = settings.embedding_size // settings.heads // 2
        turns = encoding.rotate(nothing.new_tensor([1.0, 0.0]).repeat(longest, pairs), places)
    return PositionTrace(leaves=leaves, added=added, bias=bias, turns=turns)


def train_positions(
    trace: PositionTrace,
    grad_added: Tensor | None,
    grad_bias: Tensor | None,
    into: Parameters,
    update: UpdateRule,
) -> None:
    """Update an encoding's parameters.

    Args:
        trace: The forward pass.
        grad_added: Gradient with respect to the added vectors, ``[longest, size]``.
        grad_bias: Gradient with respect to the bias, ``[heads, longest, longest]``.
        into: The parameters to update.
        update: The update rule.
    """
    if not trace.leaves:
        return
    pairs = [(trace.added, grad_added), (trace.bias, grad_bias)]
    traced, grads = zip(*(pair for pair in pairs if pair[0] is not None), strict=True)
    # Batches of equal length share the graph.
    found = torch.autograd.grad(traced, list(trace.leaves.values()), grads, retain_graph=True)
    for name, gradient in zip(trace.leaves, found, strict=True):
        update.whole(into[name], gradient)
