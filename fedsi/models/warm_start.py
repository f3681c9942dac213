"""Warm start: initial parameters from another model, matched word by word.

Rows of the embedding and of the output stand for words, and two vocabularies of the same size may
have other words or another order. So each row is copied for the word that it was trained for; words
unknown to the other model keep their drawn rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsi.data.protocol import SPECIAL_TOKENS
from fedsi.data.vocabulary import Vocabulary
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.models.build import build_model
from fedsi.models.parameters import Layout


@dataclass(frozen=True)
class Words:
    """Token ids of the same words in two vocabularies."""

    here: Sequence[int]
    """Ids in the new model, special tokens first."""
    there: Sequence[int]
    """Their ids in the source model."""
    new: int
    """Number of words that only the new model has."""
    dropped: int
    """Number of words that only the source model has."""

    @property
    def kept(self) -> int:
        """Number of words that both have."""
        return len(self.here) - len(SPECIAL_TOKENS)


def matched(here: Vocabulary, there: Vocabulary) -> Words:
    """Match two vocabularies by word.

    Raises:
        UserError: One has words and the other sub-words, or they have no word in common.
    """
    if here.file_name != there.file_name:
        raise UserError(
            "one of the two vocabularies has words and the other pieces of words; use the other "
            "model's own file with data.vocabulary"
        )
    ids: dict[str, int] = {}
    for token, name in enumerate(there.names()):
        ids.setdefault(name, token)
    pairs = [(token, ids[name]) for token, name in enumerate(here.names()) if name in ids]
    words = Words(
        [one for one, _ in pairs],
        [other for _, other in pairs],
        new=len(here) - len(pairs),
        dropped=len(there) - len(pairs),
    )
    if not words.kept:
        raise UserError(
            "the two vocabularies have no word in common; use the other model's own file with "
            "data.vocabulary"
        )
    return words


def word_axes(experiment: Experiment, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Return the axes of each trained parameter with one entry per token id.

    These are the axes that grow with the vocabulary, for any architecture.
    """
    shapes, wider = (
        build_model(experiment, size).layout.shapes
        for size in (vocabulary_size, vocabulary_size + 1)
    )
    return {
        name: tuple(axis for axis, size in enumerate(shape) if wider[name][axis] != size)
        for name, shape in shapes.items()
    }


def warm_started(
    drawn: Tensor,
    layout: Layout,
    axes: Mapping[str, tuple[int, ...]],
    source: Mapping[str, Tensor],
    words: Words,
) -> Tensor:
    """Return initial parameters, float32 ``[parameters]``.

    Args:
        drawn: Drawn initial parameters, ``[parameters]``.
        layout: The model's layout.
        axes: The result of ``word_axes``.
        source: The source model's named parameters, for which ``misfits`` is empty.
        words: The result of ``matched``.
    """
    flat = drawn.clone()
    for name, view in layout.views(flat).items():
        here, there = (
            np.ix_(*(ids if axis in axes[name] else range(n) for axis, n in enumerate(view.shape)))
            for ids in (words.here, words.there)
        )
        view.numpy()[here] = source[name].to(torch.float32).numpy()[there]
    return flat


def misfits(
    layout: Layout,
    axes: Mapping[str, tuple[int, ...]],
    source: Mapping[str, Tensor],
    vocabulary_size: int,
) -> list[str]:
    """Return the mismatches of the source model's parameters, tensor by tensor.

    Args:
        layout: The model's layout.
        axes: The result of ``word_axes``.
        source: The source model's named parameters.
        vocabulary_size: The source model's vocabulary size.
    """
    found = []
    for name, shape in layout.shapes.items():
        wanted = [
            vocabulary_size if axis in axes[name] else size for axis, size in enumerate(shape)
        ]
        if name not in source:
            found.append(f"{name} is missing")
        elif list(source[name].shape) != wanted:
            found.append(f"{name} is {list(source[name].shape)} and should be {wanted}")
    return found + [f"{name} is not in this model" for name in source if name not in layout.shapes]
