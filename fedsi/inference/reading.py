"""Reading a text word by word, knowing at each place what the model expects next.

A text is read as the protocol lays it out: ``bos`` and then its words. What has been read is kept
in a ``Reading``, so that one more word costs one step of the model, however long the text is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsi.data.protocol import BOS, FIRST_WORD
from fedsi.data.vocabulary import Vocabulary
from fedsi.errors import UserError
from fedsi.models.model import Memory, Model
from fedsi.models.parameters import Parameters


@dataclass(frozen=True)
class TrainedModel:
    """A model, its parameters, and what its token ids stand for."""

    model: Model
    parameters: Parameters
    vocabulary: Vocabulary


@dataclass(frozen=True)
class Reading:
    """What has been read; it stays as it is when reading goes on, so a text may fork."""

    tokens: tuple[int, ...]
    """``bos`` and the words."""
    memory: Memory
    log_probabilities: Tensor
    """Of each id to come next, float64 ``[vocabulary]``."""


@dataclass(frozen=True)
class Candidate:
    """A word that may come next."""

    word: str
    """Of sub-words what the text goes on with; one that begins a word begins with a space."""
    token: int
    probability: float


def begin(trained: TrainedModel) -> Reading:
    """Return the reading of a text without words yet."""
    return _read(trained, (), [], (BOS,))


def read_text(trained: TrainedModel, text: str) -> Reading:
    """Read the beginning of a text.

    Raises:
        UserError: It has no word, or more than the model has learned positions.
    """
    tokens = trained.vocabulary.encode(text)
    if not tokens:
        raise UserError(f"there is no word in the text {text!r}; give one word at least")
    return read_more(trained, begin(trained), tokens)


def read_more(trained: TrainedModel, reading: Reading, tokens: Sequence[int]) -> Reading:
    """Read tokens that follow; a user's own model, which keeps no memory, reads all anew.

    Raises:
        UserError: More tokens in all than the model has learned positions.
    """
    return _read(trained, reading.tokens, reading.memory, tuple(tokens))


def _read(
    trained: TrainedModel, before: tuple[int, ...], memory: Memory, tokens: tuple[int, ...]
) -> Reading:
    model, parameters = trained.model, trained.parameters
    with torch.inference_mode():
        features, memory = model.continued(parameters, torch.tensor([tokens]), memory)
        logits = model.logits(parameters, features[:, -1])[0].double()
        if not logits.isfinite().all():
            raise UserError(
                "the model's predictions are not numbers, as after a run that diverged; train it "
                "anew with a lower learning rate"
            )
        return Reading(before + tokens, memory, logits.log_softmax(-1))


def candidates(trained: TrainedModel, reading: Reading, count: int) -> list[Candidate]:
    """Return the likeliest next words, the likeliest first; special tokens are no words.

    Their probabilities are the model's own: over all words, and with those of the special tokens,
    they add up to one.
    """
    scores = reading.log_probabilities[FIRST_WORD:]
    best = scores.topk(min(count, len(scores)))
    return [
        Candidate(trained.vocabulary.continuation(reading.tokens, token), token, probability)
        for token, probability in zip(
            (best.indices + FIRST_WORD).tolist(), best.values.exp().tolist(), strict=True
        )
    ]
