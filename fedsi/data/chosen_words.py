"""Choice of the vocabulary, from the training clients' texts alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.data.ingest import Assignment
from fedsi.data.protocol import FIRST_WORD, OOV
from fedsi.data.public_words import public_words
from fedsi.data.spool import Chunk, Ints, SpooledRows
from fedsi.data.vocabulary import Vocabulary, WordVocabulary
from fedsi.data.word_ids import WordIds
from fedsi.data.word_list import read_word_list
from fedsi.data.words import split_words
from fedsi.errors import UserError
from fedsi.experiment import DataSettings
from fedsi.experiment.data import BY_COUNT, BY_USERS, PUBLIC

COVERAGE_SIZES = (1_000, 2_000, 4_000, 10_000, 20_000, 50_000)

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Chosen:
    """A vocabulary, and the mapping from the spool's numbers to its ids."""

    vocabulary: Vocabulary
    lookup: Ids | None
    """The id of each number; None if the spool holds ids already."""
    words: Ids | None
    """The word of each number, including words without an id."""
    coverage: dict[str, Any]

    def ids(self, numbers: Ids) -> Ids:
        """Return the token ids of some numbers of the spool."""
        return numbers + np.int32(0) if self.lookup is None else self.lookup[numbers]


def choose_words(
    encoder: WordIds,
    rows: SpooledRows,
    assigned: Assignment,
    data: DataSettings,
    texts: Sequence[str] = (),
) -> Chosen:
    """Choose words by the training clients' texts, or use those of a list.

    Args:
        encoder: The encoder that numbered the words of ``rows``.
        rows: All rows of the corpus.
        assigned: The client of each row.
        data: The settings of the vocabulary.
        texts: Public texts whose words are in the vocabulary besides.

    Raises:
        UserError: The list of words cannot be used, or the texts have too many words.
    """
    ranks = encoder.same_words()
    counts = _word_counts(rows, assigned, ranks, users=False)
    if data.vocabulary in {BY_COUNT, BY_USERS}:
        users = data.vocabulary == BY_USERS
        score = _word_counts(rows, assigned, ranks, users=True) if users else counts
        # Ranks are alphabetical, so a stable sort leaves ties in alphabetical order.
        order = np.argsort(-score, kind="stable")[: data.vocabulary_size]
        best: list[int] = order[score[order] > 0].tolist()
        words = encoder.words(best)
        if texts:
            words = _with_texts(words, texts, data)
    else:
        words = _listed(data)
    id_of = {
        rank: FIRST_WORD + place
        for place, rank in enumerate(encoder.ranks(words))
        if rank is not None
    }
    id_of_rank = np.full(len(counts), OOV, dtype=np.int32)
    id_of_rank[list(id_of)] = list(id_of.values())
    return Chosen(WordVocabulary(words, data.words), id_of_rank[ranks], ranks, _coverage(counts))


def _with_texts(words: Sequence[str], texts: Sequence[str], data: DataSettings) -> list[str]:
    """Return the words of some texts and then the first others, as many as are allowed."""
    first = dict.fromkeys(word for text in texts for word in split_words(text, data.words))
    if len(first) > data.vocabulary_size:
        raise UserError(
            f"the labels have {len(first):,} different words, more than data.vocabulary_size = "
            f"{data.vocabulary_size:,}; raise it, or lower task.labels"
        )
    return list(dict.fromkeys((*first, *words)))[: data.vocabulary_size]


def _listed(data: DataSettings) -> list[str]:
    if data.vocabulary == PUBLIC:
        return public_words(data.vocabulary_size, data.words)
    return read_word_list(Path(data.vocabulary), data.vocabulary_size, data.words)


def _word_counts(rows: SpooledRows, assigned: Assignment, ranks: Ids, *, users: bool) -> Ints:
    """Count the training clients' words or, for each word, the training clients that use it.

    Returns:
        The count of each rank, ``[words]``.
    """
    number = int(ranks.max()) + 1
    counts = np.zeros(number, dtype=np.int64)
    for chunk in _training_chunks(rows, assigned):
        words = ranks[chunk.tokens].astype(np.int64)
        if users:
            pairs = np.repeat(chunk.clients, chunk.lengths) * number + words
            words = np.unique(pairs) % number
        counts += np.bincount(words, minlength=number)
    return counts


def _training_chunks(rows: SpooledRows, assigned: Assignment) -> Iterator[Chunk]:
    training = assigned.training_clients
    for chunk in rows.by_client(assigned.clients, len(assigned.names)):
        mine = int(np.searchsorted(chunk.clients, training))
        if not mine:
            return
        lengths = chunk.lengths[:mine]
        yield Chunk(chunk.clients[:mine], lengths, chunk.tokens[: lengths.sum()])


def _coverage(counts: Ints) -> dict[str, Any]:
    """Return the share of the training clients' text covered by the most frequent words."""
    covered = np.cumsum(np.sort(counts)[::-1]) / counts.sum()
    sizes = [size for size in COVERAGE_SIZES if size < len(covered)]
    shares = {f"{size}": float(covered[size - 1]) for size in sizes}
    return {"distinct_words": int((counts > 0).sum()), "vocabulary_coverage": shares}
