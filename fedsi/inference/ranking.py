"""Ranking of labels for a text by a trained model."""

from dataclasses import dataclass

import torch

from fedsi.data.protocol import BOS
from fedsi.data.vocabulary import LabelledVocabulary
from fedsi.errors import UserError
from fedsi.inference.reading import DIVERGED, TrainedModel, tokens_of


@dataclass(frozen=True)
class Ranked:
    """A label in a ranking."""

    label: str
    text: str
    """What the model read of the label."""
    probability: float
    """Its share of the softmax over all labels."""


def ranks_labels(trained: TrainedModel) -> bool:
    """Whether a model ranks labels and not words."""
    return isinstance(trained.vocabulary, LabelledVocabulary)


def rank_labels(trained: TrainedModel, text: str, sequence_length: int, top: int) -> list[Ranked]:
    """Return the first labels for a text, the best first.

    Args:
        trained: A model that ranks labels.
        text: The query.
        sequence_length: ``data.sequence_length`` of its training; a query has at most one word
            less, and further words are not read.
        top: Most labels to return.

    Raises:
        UserError: The text has no word, or the model's scores are not numbers.
    """
    vocabulary, model, parameters = trained.vocabulary, trained.model, trained.parameters
    if not isinstance(vocabulary, LabelledVocabulary):
        raise TypeError("the model ranks no labels")
    tokens = [BOS, *tokens_of(trained, text)[: sequence_length - 1]]
    with torch.inference_mode():
        features = model.features(parameters, torch.tensor([tokens]))
        scores = model.logits(parameters, features[:, -1])[0].double()
    if not scores.isfinite().all():
        raise UserError(DIVERGED)
    best = scores.softmax(-1).topk(min(top, len(scores)))
    labels = vocabulary.labels
    return [
        Ranked(labels.names[place], labels.texts[place], probability)
        for place, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def refuse_labels(trained: TrainedModel, what: str) -> None:
    """Refuse a model that ranks labels where next words are needed.

    Args:
        trained: The model.
        what: What needs next words, as the beginning of the sentence.

    Raises:
        UserError: It ranks labels.
    """
    if ranks_labels(trained):
        raise UserError(
            f"{what} needs a model of next words, and this one ranks labels; use fedsi predict"
        )
