"""The interface of a model: functions of parameters that are passed in."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Layout, Parameters

Memory = list[tuple[Tensor, ...]]
"""A model's memory of the words before: state and cell, keys and values of each block, or the words
themselves. Empty before the first word."""

Outputs = Callable[[Tensor], tuple[Tensor, ...]]
"""Function of an output layer's inputs, ``[batch, time, size]``."""


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
        """The largest number of tokens that the model can read, or None for any number."""
        ...

    @property
    def layout(self) -> Layout:
        """Names and shapes of the trained parameters."""
        ...

    @property
    def frozen(self) -> Parameters:
        """Fixed parameters by name. They are part of the model's function and are not trained."""
        ...

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Draw initial parameters, float32 ``[parameters]``."""
        ...

    def features(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """Return ``[batch, time, *]`` for token ids ``[batch, time]``.

        Architectures with ``takes_ids`` have a third argument, the ids of the tokens' positions,
        int64 ``[streams, batch, time]``, -1 for a token without one; None to count from 0.
        """
        ...

    def continued(
        self, parameters: Parameters, inputs: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """Return the features of words that continue a memory, and the extended memory."""
        ...

    def logits(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Return ``[targets, vocabulary]`` for the features ``[targets, *]`` of some positions."""
        ...

    def output_inputs(self, parameters: Parameters, features: Tensor) -> Tensor | None:
        """Return the inputs of the output layer, ``[*, batch, time, size]``, for some features.

        None if there is no matrix with a column for each word (``layers.output_matrix``).
        """
        ...

    def exported(self, parameters: Parameters, outputs: Outputs | None = None) -> nn.Module:
        """Return the function from tokens, ``[batch, time]``, to logits as a module for export.

        Args:
            parameters: The parameters.
            outputs: Replaces the output layer; called with its inputs, ``[batch, time, size]``.
        """
        ...


def all_parameters(model: Model, flat: Tensor) -> Parameters:
    """Return a model's parameters by name, trained ones first.

    Args:
        model: The model.
        flat: The trained parameters, ``[parameters]``.
    """
    return {**model.layout.views(flat), **model.frozen}


def count_parameters(model: Model) -> int:
    """Return the number of a model's parameters, trained or not."""
    return model.layout.size + sum(value.numel() for value in model.frozen.values())
