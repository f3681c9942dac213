"""Dual encoders: a query and the labels' texts become vectors, and their cosines are the scores.

With the vector ``q`` of a text so far and the vector ``v_n`` of a label, both of length 1::

    score_n = <q, v_n> / temperature

A text's vector is the mean of an encoder's states (what its output layer would read), or the last
of them. The encoder is any other architecture of the table, ``model.encoder``; queries and labels
share its parameters, or labels have their own. With ``model.label_encoder=table`` a label is a row
of a matrix and has no text: a classifier with the same normalisation and temperature.

For a task without labels the labels are the token ids, each a text of one token. Every prefix of a
text has scores, so the model is causal, and has a memory, like the others.

Source: Gupta et al., "Dual-Encoders for Extreme Multi-Label Classification" (arXiv 2310.10636).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fedsi.data.labels import LabelTokens
from fedsi.data.protocol import PAD
from fedsi.experiment import ModelSettings
from fedsi.models.layers import SMALLEST_SQUARE
from fedsi.models.model import Memory, Model, Outputs
from fedsi.models.parameters import Layout, Parameters, drawn
from fedsi.models.table import architecture
from fedsi.tables import load

OUTPUT = "output."
"""Prefix of the parameters of an encoder's output layer, which is left out."""
LABEL = "label."
"""Prefix of the parameters of the labels."""
TABLE = "label.table"


@dataclass(frozen=True)
class DualEncoder:
    """The functions of a dual encoder. Parameters may have a leading client axis.

    Args:
        settings: Its own keys and those of its encoder.
        vocabulary_size: Number of token ids, special tokens included.
        labels: The labels that it ranks.
    """

    settings: ModelSettings
    vocabulary_size: int
    labels: LabelTokens

    @property
    def frozen(self) -> Parameters:
        """No parameters, because all are trained."""
        return {}

    @property
    def longest(self) -> int | None:
        """The largest number of tokens that the encoder can read, or None for any number."""
        return self.encoder.longest

    @cached_property
    def encoder(self) -> Model:
        """The encoder, a language model whose output layer is not used."""
        entry = architecture(self.settings.encoder)
        streams = [0] if entry.takes_ids else []
        model: Model = load(entry.build)(self.settings.of_encoder, self.vocabulary_size, *streams)
        return model

    @cached_property
    def layout(self) -> Layout:
        """Names and shapes of the parameters."""
        shapes = self.encoder.layout.shapes
        encoder = {name: shape for name, shape in shapes.items() if not name.startswith(OUTPUT)}
        match self.settings.label_encoder:
            case "own":
                return Layout(encoder | {LABEL + name: shape for name, shape in encoder.items()})
            case "table":
                size = shapes["output.weight"][0]
                return Layout(encoder | {TABLE: (self.labels.most, size)})
        return Layout(encoder)

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Draw initial parameters, float32 ``[parameters]``."""
        encoders = [self.encoder.layout.views(self.encoder.draw(rng))]
        if self.settings.label_encoder == "own":
            encoders.append(self.encoder.layout.views(self.encoder.draw(rng)))

        def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
            if name == TABLE:
                return rng.normal(size=shape)
            views = encoders[name.startswith(LABEL)]
            return views[name.removeprefix(LABEL)].numpy()

        return drawn(self.layout, value)

    def features(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """Return the vector of each prefix of the texts, ``[*, batch, time, size]``.

        Args:
            parameters: Named tensors, ``[*, ...]``.
            inputs: Token ids, ``[*, batch, time]``.
        """
        return self.continued(parameters, inputs, [])[0]

    def continued(
        self, parameters: Parameters, inputs: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """Return the vectors of texts that continue a memory, and the extended memory.

        The memory is that of the encoder and, at the end, the sum and the number of the states.
        """
        states, kept = self._states(parameters, inputs, memory[:-1])
        if self.settings.pooling == "last":
            return states, [*kept, ()]
        summed, before = states.cumsum(-2), 0
        if memory:
            total, number = memory[-1]
            summed, before = summed + total.unsqueeze(-2), int(number)
        counts = torch.arange(1, states.shape[-2] + 1, device=states.device) + before
        means = summed / counts.unsqueeze(-1)
        return means, [*kept, (summed[..., -1, :], counts[-1])]

    def features_and_penalty(
        self, parameters: Parameters, inputs: Tensor, ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the features, and what training adds to the mean loss of a batch.

        It is what the encoder adds for the queries and, if labels have an encoder of their own,
        what that adds for the labels' texts.
        """
        del ids  # a dual encoder takes none
        encoder = cast("Any", self.encoder)
        features, penalty = encoder.features_and_penalty(parameters, inputs)
        states = self._output_inputs(parameters, features)
        if self.settings.label_encoder == "own":
            _, more = encoder.features_and_penalty(
                self._of_labels(parameters), self._label_inputs.to(inputs.device)
            )
            penalty = penalty + more
        if self.settings.pooling == "last":
            return states, penalty
        counts = torch.arange(1, states.shape[-2] + 1, device=states.device)
        return states.cumsum(-2) / counts.unsqueeze(-1), penalty

    def _states(
        self, parameters: Parameters, inputs: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """Return what the encoder's output layer would read, and the encoder's memory."""
        features, kept = self.encoder.continued(parameters, inputs, memory)
        return self._output_inputs(parameters, features), kept

    def _output_inputs(self, parameters: Parameters, features: Tensor) -> Tensor:
        states = self.encoder.output_inputs(parameters, features)
        assert states is not None, "every encoder has an output layer"  # noqa: S101
        return states

    def _of_labels(self, parameters: Parameters) -> Parameters:
        """Return the parameters of the labels' encoder by their names within it."""
        if self.settings.label_encoder == "shared":
            return parameters
        own = {name: value for name, value in parameters.items() if name.startswith(LABEL)}
        return {name.removeprefix(LABEL): value for name, value in own.items()}

    @property
    def _label_inputs(self) -> Tensor:
        """The labels' texts, int64 ``[labels, time]``.

        Raises:
            TypeError: The model was built without labels.
        """
        if self.labels.tokens is None:
            raise TypeError("a model that was built without labels ranks none")
        return torch.from_numpy(self.labels.tokens).long()

    def label_vectors(self, parameters: Parameters) -> Tensor:
        """Return the labels' vectors, ``[*, labels, size]``, of length 1.

        Raises:
            TypeError: The model was built without labels.
        """
        if self.settings.label_encoder == "table":
            return _unit(parameters[TABLE][..., : len(self._label_inputs), :])
        named = self._of_labels(parameters)
        inputs = self._label_inputs.to(named["embedding"].device)
        axes = named["embedding"].shape[:-2]
        vectors = self.features(named, inputs.expand(*axes, *inputs.shape))
        last = (inputs != PAD).sum(-1).sub(1).clamp_min(0)
        places = torch.arange(len(inputs), device=inputs.device)
        return _unit(vectors[..., places, last, :])

    def logits(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Return the scores of all labels for ``[*, batch, time, size]`` or ``[targets, size]``."""
        return self.scores(features, self.label_vectors(parameters))

    def scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the scores of labels ``[*, labels, size]``."""
        queries = _unit(features) / self.settings.temperature
        if labels.dim() == 3:  # a client axis
            labels = labels.unsqueeze(-3)
        return queries @ labels.transpose(-1, -2)

    def output_inputs(self, parameters: Parameters, features: Tensor) -> None:
        """Return None: the scores are no product with a matrix of the model."""
        del parameters, features

    def exported(self, parameters: Parameters, outputs: Outputs | None = None) -> nn.Module:
        """Return the function from tokens to scores as a module, in which labels are vectors."""
        if outputs is not None:
            raise TypeError("a dual encoder has no output layer that could be replaced")
        return ExportedDualEncoder(self, parameters)


class ExportedDualEncoder(nn.Module):
    """The function to export: tokens, int64 ``[batch, time]``, to scores of all labels.

    Args:
        model: The model.
        parameters: Its parameters.
    """

    def __init__(self, model: DualEncoder, parameters: Parameters) -> None:
        super().__init__()
        self._scores, self._pooling = model.scores, model.settings.pooling
        own = model.encoder.layout.shapes
        queries = {name: value for name, value in parameters.items() if name in own}
        self.encoder = model.encoder.exported(queries, lambda states: (states,))
        with torch.no_grad():
            self.labels = nn.Parameter(model.label_vectors(parameters))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores, ``[batch, time, labels]``."""
        (states,) = self.encoder(tokens)
        if self._pooling == "mean":
            counts = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
            states = states.cumsum(-2) / counts.unsqueeze(-1)
        return self._scores(states, self.labels)


def _unit(x: Tensor) -> Tensor:
    """Divide rows by their length, which is clamped from below."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True).clamp_min(SMALLEST_SQUARE))
