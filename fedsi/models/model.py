"""What training and evaluation ask of a model: functions of parameters that are passed in."""

from typing import Protocol

import numpy as np
from torch import Tensor, nn

from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Layout, Parameters

Memory = list[tuple[Tensor, ...]]
"""What a model keeps of the words before: state and cell, keys and values of each block, or the
words themselves; empty before the first word."""


class Model(Protocol):
    """A language model as pure functions."""

    @property
    def settings(self) -> ModelSettings:
        """Architecture and sizes."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids, special tokens included."""
        ...

    @property
    def longest(self) -> int | None:
        """The most tokens that the model can read; None for any number."""
        ...

    @property
    def layout(self) -> Layout:
        """Names and shapes of the parameters that are trained."""
        ...

    @property
    def frozen(self) -> Parameters:
        """Parameters that are not trained, by name: a part of the model as its equations are."""
        ...

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Draw initial parameters, float32 ``[parameters]``."""
        ...

    def features(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """Return ``[batch, time, *]`` for token ids ``[batch, time]``."""
        ...

    def continued(
        self, parameters: Parameters, inputs: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """Return the features of words that follow those of a memory, and it with them."""
        ...

    def logits(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Return ``[targets, vocabulary]`` for some positions' features ``[targets, *]``."""
        ...

    def exported(self, parameters: Parameters) -> nn.Module:
        """Return the function of tokens, ``[batch, time]``, to logits, to export it."""
        ...


def all_parameters(model: Model, flat: Tensor) -> Parameters:
    """Return a model's parameters by name, those that are not trained last.

    Args:
        model: The model.
        flat: The trained ones, ``[parameters]``.
    """
    return {**model.layout.views(flat), **model.frozen}


def count_parameters(model: Model) -> int:
    """Return the number of a model's parameters, trained or not."""
    return model.layout.size + sum(value.numel() for value in model.frozen.values())
