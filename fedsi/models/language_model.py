"""A next-word language model: embedding, recurrent cell, optional projection, output layer."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fedsi.experiment import ModelSettings
from fedsi.models.cells import ACTIVATIONS, GATES, dense, recurrence
from fedsi.models.parameters import Layout, Parameters

SMALLEST_SQUARE = 1e-12
"""Below it a word's mean square counts as this, so that a vector of zeros stays zero."""


@dataclass(frozen=True)
class LanguageModel:
    """The model's functions; its parameters are always passed in.

    Every parameter may carry a leading client axis, and then so do inputs and results.

    Args:
        settings: Architecture and sizes.
        vocabulary_size: Number of token ids, special tokens included.
    """

    settings: ModelSettings
    vocabulary_size: int

    @property
    def layout(self) -> Layout:
        """Names and shapes of the parameters, without the client axis.

        With a projection and an untied output, vocabulary 10,004, embedding 96 and hidden size
        670 this is the Stack Overflow next-word model of Reddi et al. (arXiv 2003.00295) with a
        CIFG in place of its LSTM: 3,536,858 parameters.
        """
        size, hidden = self.settings.embedding_size, self.settings.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (self.vocabulary_size, size),
            "cell.kernel": (size, GATES * hidden),
            "cell.recurrent": (hidden, GATES * hidden),
            "cell.bias": (GATES * hidden,),
        }
        features = hidden
        if self.settings.projection:
            shapes |= {"projection.weight": (hidden, size), "projection.bias": (size,)}
            features = size
        if not self.settings.tied_output:
            shapes["output.weight"] = (features, self.vocabulary_size)
        return Layout(shapes | {"output.bias": (self.vocabulary_size,)})

    def features(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """Return the hidden states for a batch of sequences.

        Args:
            parameters: Named tensors, ``[*, ...]``.
            inputs: Token ids, ``[*, batch, time]``.

        Returns:
            ``[*, batch, time, hidden]``.
        """
        vectors = _look_up(parameters["embedding"], inputs)
        if self.settings.embedding_normalisation == "rms":
            vectors = _rms_normalise(vectors)
        return recurrence(
            ACTIVATIONS[self.settings.architecture],
            vectors,
            parameters["cell.kernel"],
            parameters["cell.recurrent"],
            parameters["cell.bias"],
        )

    def logits(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Return unnormalised log probabilities of the next word.

        Args:
            parameters: Named tensors, ``[*, ...]``.
            features: ``[*, batch, time, hidden]``, or ``[targets, hidden]`` without client axis.

        Returns:
            As ``features`` with the vocabulary as the last axis.
        """
        single = features.dim() == 2
        states = features.unsqueeze(0) if single else features
        if self.settings.projection:
            states = dense(states, parameters["projection.weight"], parameters["projection.bias"])
        weight = (
            parameters["embedding"].transpose(-1, -2)
            if self.settings.tied_output
            else parameters["output.weight"]
        )
        logits = dense(states, weight, parameters["output.bias"])
        return logits.squeeze(0) if single else logits


def _look_up(embedding: Tensor, ids: Tensor) -> Tensor:
    """Return rows of ``[*, vocabulary, size]`` for ids ``[*, batch, time]``."""
    if embedding.dim() == 2:
        return functional.embedding(ids, embedding)
    clients, vocabulary, _ = embedding.shape
    offsets = torch.arange(clients, device=ids.device).view(-1, 1, 1) * vocabulary
    return functional.embedding(ids + offsets, embedding.flatten(0, 1))


def _rms_normalise(x: Tensor) -> Tensor:
    """Divide by the root mean square along the last axis."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True).clamp_min(SMALLEST_SQUARE))
