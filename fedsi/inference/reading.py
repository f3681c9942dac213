"""Reading of a text word by word, with the model's prediction at each position.

A text is laid out as in training: ``bos`` and then its words. A ``Reading`` keeps the model's
memory, so one more word costs one step of the model, however long the text is. A model with
position ids from its task keeps none: ids are those of the whole text, which is read again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsi.data.protocol import BOS, EOS, FIRST_WORD
from fedsi.data.vocabulary import Vocabulary
from fedsi.errors import UserError
from fedsi.learning.predictions import batch_features
from fedsi.models.model import Memory, Model
from fedsi.models.parameters import Parameters
from fedsi.models.table import architecture
from fedsi.tasks.task import Task

DIVERGED = (
    "the model's predictions are not numbers, as after a run that diverged; train it again with a "
    "lower learning rate"
)


@dataclass(frozen=True)
class TrainedModel:
    """A model, its parameters and its vocabulary."""

    model: Model
    parameters: Parameters
    vocabulary: Vocabulary
    task: Task | None = None
    """The task it was trained on, which gives a text's position ids; None without ids."""

    @property
    def reads_ids(self) -> bool:
        """Whether it reads position ids of its task."""
        takes_ids = architecture(self.model.settings.architecture).takes_ids
        return takes_ids and self.task is not None and self.task.streams > 0


@dataclass(frozen=True)
class Reading:
    """The state after reading some tokens. It is immutable, so a text may branch."""

    tokens: tuple[int, ...]
    """``bos`` and the words read."""
    memory: Memory
    log_probabilities: Tensor
    """Log probability of each id as the next token, float64 ``[vocabulary]``."""


@dataclass(frozen=True)
class Candidate:
    """A possible next word."""

    word: str
    """Text of the token; with sub-words, one that begins a word begins with a space."""
    token: int
    probability: float


def begin(trained: TrainedModel) -> Reading:
    """Return the reading of an empty text."""
    return _read(trained, (), [], (BOS,))


def read_prompt(trained: TrainedModel, text: str) -> Reading:
    """Read the beginning of a text.

    Raises:
        UserError: It has no word, or more tokens than the model has learned positions.
    """
    tokens = tokens_of(trained, text)
    if trained.reads_ids:  # the empty text may have none
        return _read(trained, (), [], (BOS, *tokens))
    return read_more(trained, begin(trained), tokens)


def tokens_of(trained: TrainedModel, text: str) -> list[int]:
    """Return the ids of a text.

    Raises:
        UserError: It has no word.
    """
    tokens = trained.vocabulary.encode(text)
    if not tokens:
        raise UserError(f"there is no word in the text {text!r}; give at least one word")
    return tokens


def read_more(trained: TrainedModel, reading: Reading, tokens: Sequence[int]) -> Reading:
    """Read more tokens. A user's own model keeps no memory and reads the whole text again.

    Raises:
        UserError: There are more tokens in total than the model has learned positions.
    """
    return _read(trained, reading.tokens, reading.memory, tuple(tokens))


def _read(
    trained: TrainedModel, before: tuple[int, ...], memory: Memory, tokens: tuple[int, ...]
) -> Reading:
    model, parameters = trained.model, trained.parameters
    with torch.inference_mode():
        if trained.reads_ids:
            features = _with_ids(trained, before + tokens)
        else:
            features, memory = model.continued(parameters, torch.tensor([tokens]), memory)
        logits = model.logits(parameters, features[:, -1])[0].double()
        if not logits.isfinite().all():
            raise UserError(DIVERGED)
        return Reading(before + tokens, memory, logits.log_softmax(-1))


def _with_ids(trained: TrainedModel, tokens: tuple[int, ...]) -> Tensor:
    """Return the features of a whole text ``[1, time, *]``, read with the task's ids.

    Raises:
        UserError: The task makes other inputs of the text than its own tokens.
    """
    assert trained.task is not None  # noqa: S101
    rows = np.array([[*tokens, EOS]], np.int32)
    batch = trained.task.batch(rows)
    if not np.array_equal(batch.inputs, rows[:, :-1]):
        raise UserError(
            "the model's task makes other inputs of a text than its own tokens, so it continues "
            "no text; evaluate it with fedsi evaluate"
        )
    return batch_features(trained.model, trained.parameters, batch)


def candidates(trained: TrainedModel, reading: Reading, count: int) -> list[Candidate]:
    """Return the most likely next words, most likely first, without special tokens.

    Their probabilities are the model's: they sum to one over all words and special tokens.
    """
    scores = reading.log_probabilities[FIRST_WORD:]
    best = scores.topk(min(count, len(scores)))
    return [
        Candidate(trained.vocabulary.continuation(reading.tokens, token), token, probability)
        for token, probability in zip(
            (best.indices + FIRST_WORD).tolist(), best.values.exp().tolist(), strict=True
        )
    ]
