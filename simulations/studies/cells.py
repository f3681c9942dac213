"""Variants of the scale-invariant cell, for the study ``variants`` of the series ``replication``.

They are custom models (``model.architecture=simulations.studies.cells:ScaleInvariant``), because
nothing else needs them. Without a variant, the module computes what ``si_cifg`` does.
"""

import math

import torch
from torch import Tensor, nn

from fedsi.models.layers import EMBEDDING_RANGE, rms_normalise
from fedsi.models.recurrent import FORGET_BIAS, GATES, SMALLEST_MAXIMUM


class ScaleInvariant(nn.Module):
    """SI-CIFG (Ro et al., arXiv 2403.08100) with a projection and an untied output layer.

    Args:
        vocabulary_size: Number of token ids.
        embedding: Size of the word vectors, which are divided by their root mean square.
        hidden: Size of the state.
        inputs: ``max`` divides the pre-activation's input term by its largest magnitude too, so
            that the two terms keep their proportion whatever the scale of the embeddings.
        through_maximum: Whether gradients flow through the maximum that a layer is divided by.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding: int = 64,
        hidden: int = 128,
        inputs: str = "plain",
        *,
        through_maximum: bool = True,
    ) -> None:
        super().__init__()
        if inputs not in {"plain", "max"}:
            raise ValueError(f"inputs = {inputs!r} is neither plain nor max")
        self._maximum_of_inputs, self._through = inputs == "max", through_maximum
        limit, gates = EMBEDDING_RANGE["default"], GATES * hidden
        vectors = torch.empty(vocabulary_size, embedding).uniform_(-limit, limit)
        self.embedding = nn.Parameter(vectors)
        self.kernel = nn.Parameter(torch.randn(embedding, gates) * math.sqrt(2 / embedding))
        self.recurrent = nn.Parameter(nn.init.orthogonal_(torch.empty(hidden, gates)))
        self.bias = nn.Parameter(torch.zeros(gates))
        self.projection = nn.Parameter(nn.init.xavier_uniform_(torch.empty(hidden, embedding)))
        self.projection_bias = nn.Parameter(torch.zeros(embedding))
        self.output = nn.Parameter(nn.init.xavier_uniform_(torch.empty(embedding, vocabulary_size)))
        self.output_bias = nn.Parameter(torch.zeros(vocabulary_size))
        with torch.no_grad():
            self.bias[:hidden] = FORGET_BIAS["default"]

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits, ``[batch, time, vocabulary]``, for token ids ``[batch, time]``."""
        words = rms_normalise(nn.functional.embedding(ids, self.embedding)) @ self.kernel
        if self._maximum_of_inputs:
            words = self._normalised(words, words.abs())
        words = words + self.bias
        state = cell = words.new_zeros(len(ids), len(self.recurrent))
        states = []
        for word in words.unbind(1):
            forget, output, candidate = (word + state @ self.recurrent).chunk(GATES, -1)
            kept = self._normalised(forget.relu(), forget.relu())
            cell = torch.lerp(self._normalised(candidate, candidate.abs()), cell, kept)
            shown = self._normalised(output.relu(), output.relu())
            state = shown * self._normalised(cell, cell.abs())
            states.append(state)
        projected = torch.stack(states, 1) @ self.projection + self.projection_bias
        return projected @ self.output + self.output_bias

    def _normalised(self, x: Tensor, magnitudes: Tensor) -> Tensor:
        largest = magnitudes.amax(-1, keepdim=True).clamp_min(SMALLEST_MAXIMUM)
        return x / (largest if self._through else largest.detach())
