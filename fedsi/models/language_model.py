"""A next-word language model: embedding, recurrent cell, optional projection, output layer."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fedsi.experiment import ModelSettings
from fedsi.models.cells import ACTIVATIONS, dense, recurrence
from fedsi.models.model import Memory
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
    def frozen(self) -> Parameters:
        """No parameters: all are trained."""
        return {}

    @property
    def layout(self) -> Layout:
        """Names and shapes of the parameters, without the client axis.

        With a projection and an untied output, vocabulary 10,004, embedding 96 and hidden size
        670 this is the Stack Overflow next-word model of Reddi et al. (arXiv 2003.00295): 4,050,748
        parameters with its LSTM, 3,536,858 with a CIFG.
        """
        size, hidden = self.settings.embedding_size, self.settings.hidden_size
        gates = ACTIVATIONS[self.settings.architecture].gates
        state = size if self.settings.recurrent_projection else hidden
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (self.vocabulary_size, size),
            "cell.kernel": (size, gates * hidden),
            "cell.recurrent": (state, gates * hidden),
            "cell.bias": (gates * hidden,),
        }
        features = state
        if self.settings.recurrent_projection:
            shapes["projection.weight"] = (hidden, size)
        elif self.settings.projection:
            shapes |= {"projection.weight": (hidden, size), "projection.bias": (size,)}
            features = size
        if not self.settings.tied_output:
            shapes["output.weight"] = (features, self.vocabulary_size)
        return Layout(shapes | {"output.bias": (self.vocabulary_size,)})

    def features(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """Return the recurrent states for a batch of sequences.

        Args:
            parameters: Named tensors, ``[*, ...]``.
            inputs: Token ids, ``[*, batch, time]``.

        Returns:
            ``[*, batch, time, state]``, the state being the hidden one or, with a recurrent
            projection, of the embedding size.
        """
        return self.continued(parameters, inputs, [])[0]

    def continued(
        self, parameters: Parameters, inputs: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """Return the features of words that follow those of a memory, and the memory with them.

        Args:
            parameters: As for ``features``.
            inputs: As for ``features``, at least one word of each sentence.
            memory: What was returned for the words before; it stays as it is.
        """
        states, last = recurrence(
            ACTIVATIONS[self.settings.architecture],
            embed(self.settings, parameters, inputs),
            parameters["cell.kernel"],
            parameters["cell.recurrent"],
            parameters["cell.bias"],
            parameters["projection.weight"] if self.settings.recurrent_projection else None,
            before=memory[0] if memory else None,
        )
        return states, [last]

    def logits(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Return unnormalised log probabilities of the next word.

        Args:
            parameters: Named tensors, ``[*, ...]``.
            features: ``[*, batch, time, state]``, or ``[targets, state]`` without client axis.

        Returns:
            As ``features`` with the vocabulary as the last axis.
        """
        single = features.dim() == 2
        states = features.unsqueeze(0) if single else features
        if self.settings.projection and not self.settings.recurrent_projection:
            states = dense(states, parameters["projection.weight"], parameters["projection.bias"])
        logits = output_logits(self.settings, parameters, states)
        return logits.squeeze(0) if single else logits


def embed(settings: ModelSettings, parameters: Parameters, inputs: Tensor) -> Tensor:
    """Return the words' vectors, ``[*, batch, time, embedding]``, for ids ``[*, batch, time]``."""
    vectors = _look_up(parameters["embedding"], inputs)
    return rms_normalise(vectors) if settings.embedding_normalisation == "rms" else vectors


def output_logits(settings: ModelSettings, parameters: Parameters, states: Tensor) -> Tensor:
    """Return ``[*, batch, time, vocabulary]`` for what the output layer sees of each position."""
    weight = (
        parameters["embedding"].transpose(-1, -2)
        if settings.tied_output
        else parameters["output.weight"]
    )
    return dense(states, weight, parameters["output.bias"])


def _look_up(embedding: Tensor, ids: Tensor) -> Tensor:
    """Return rows of ``[*, vocabulary, size]`` for ids ``[*, batch, time]``."""
    if embedding.dim() == 2:
        return functional.embedding(ids, embedding)
    clients, vocabulary, _ = embedding.shape
    offsets = torch.arange(clients, device=ids.device).view(-1, 1, 1) * vocabulary
    return functional.embedding(ids + offsets, embedding.flatten(0, 1))


def rms_normalise(x: Tensor) -> Tensor:
    """Divide by the root mean square along the last axis."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True).clamp_min(SMALLEST_SQUARE))
