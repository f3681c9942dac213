"""The interface of a feed-forward part: its parameters, and its function of a block's stream."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Parameters

Shapes = dict[str, tuple[int, ...]]
Function = Callable[[ModelSettings, Parameters, Tensor], Tensor]

ACTIVATIONS = {"relu": torch.relu, "gelu": functional.gelu}


@dataclass(frozen=True)
class FeedForwardPart:
    """A feed-forward part. Its parameters are passed in by their names within the block."""

    shapes: Callable[[ModelSettings], Shapes]
    """Names and shapes of its parameters, without the client axis. The last two axes of each are
    those of a matrix."""
    run: Function
    """``(settings, parameters, x [*, batch, time, embedding])`` -> the same shape."""
    penalty: Callable[[ModelSettings, Parameters, Tensor, Tensor], Tensor] | None = None
    """``(settings, parameters, x [batch, time, embedding], real [batch, time])`` -> what is added
    to the mean loss of a batch in training; ``real`` is False at padding. None for nothing."""
    choices: Callable[[ModelSettings, Parameters, Tensor], Tensor] | None = None
    """``(settings, parameters, x)`` -> whether a token uses each of the experts or groups that it
    chooses from, ``[*, batch, time, experts or groups]``; None if there is no choice."""
