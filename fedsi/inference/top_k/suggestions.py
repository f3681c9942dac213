"""Next words by any output layer, while a text is typed word by word."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedsi.data.protocol import BOS, EOS, OOV
from fedsi.errors import UserError
from fedsi.inference.reading import DIVERGED, Candidate, TrainedModel
from fedsi.inference.top_k.calibration import own_states
from fedsi.inference.top_k.layer import Array, Choice, TopK, check_choice, rows_of
from fedsi.inference.top_k.table import OUTPUT_LAYERS
from fedsi.models.model import Memory


@dataclass(frozen=True)
class Typed:
    """A text so far. It is immutable, so a text may branch."""

    tokens: tuple[int, ...]
    """``bos`` and the words."""
    memory: Memory
    state: Array
    """The output layer's input, float32 ``[size]``."""


@dataclass(frozen=True)
class Suggestions:
    """The likely next words and what else may come."""

    tokens: tuple[int, ...]
    """What was read: ``bos`` and the words."""
    words: Sequence[Candidate]
    """Most likely first. Probabilities are relative to the layer's scores of all words, so they are
    nearly the model's."""
    end: float
    """Probability that the sentence ends."""
    unknown: float
    """Probability of a word outside the vocabulary."""


def build_layer(trained: TrainedModel, name: str, choice: Choice) -> TopK:
    """Build an output layer of a model by its name, calibrated on texts that the model writes.

    Raises:
        UserError: There is no such layer, the model has no output layer that could be replaced, or
            the choice does not fit.
    """
    kind = OUTPUT_LAYERS[name]
    rows = rows_of(trained)
    check_choice(kind, name, choice, rows)
    states = own_states(trained) if kind.calibrated else np.empty((0, rows.size), np.float32)
    return kind.build(rows, choice, states)


def start_typing(trained: TrainedModel) -> Typed:
    """Return the empty text."""
    return _typed(trained, (), [], (BOS,))


def type_on(trained: TrainedModel, before: Typed, tokens: Sequence[int]) -> Typed:
    """Add words, at least one.

    Raises:
        UserError: There are more tokens in total than the model has learned positions, or the
            model's predictions are not numbers.
    """
    return _typed(trained, before.tokens, before.memory, tuple(tokens))


def _typed(
    trained: TrainedModel, before: tuple[int, ...], memory: Memory, tokens: tuple[int, ...]
) -> Typed:
    model, parameters = trained.model, trained.parameters
    with torch.inference_mode():
        features, memory = model.continued(parameters, torch.tensor([tokens]), memory)
        inputs = model.output_inputs(parameters, features[:, -1:])
        if inputs is None:
            raise TypeError(f"{model.settings.architecture} has no output layer")
        if not inputs.isfinite().all():
            raise UserError(DIVERGED)
        return Typed(before + tokens, memory, inputs[0, -1].numpy())


def suggest(trained: TrainedModel, typed: Typed, layer: TopK, count: int) -> Suggestions:
    """Return the next words that a layer finds."""
    best = layer.best(typed.state, count)
    scores = best.of_all.astype(np.float64)
    highest = scores.max()
    total = highest + np.log(np.exp(scores - highest).sum())
    words = [
        Candidate(trained.vocabulary.continuation(typed.tokens, token), token, probability)
        for token, probability in zip(
            best.ids.tolist(), np.exp(best.scores - total).tolist(), strict=True
        )
    ]
    others = (float(np.exp(scores[token] - total)) for token in (EOS, OOV))
    return Suggestions(typed.tokens, words, *others)
