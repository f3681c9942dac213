"""Choosing the vocabulary of a corpus that was read, and writing its token store."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedsi.data.content_hash import ContentDigest
from fedsi.data.corpus import Corpus, Progress
from fedsi.data.ingest import Plan, plan, read_rows, survey, training_texts
from fedsi.data.population import Description, write_meta
from fedsi.data.protocol import EOS, FIRST_WORD, OOV
from fedsi.data.repeated import Repeated
from fedsi.data.spool import Chunk, Ints, Rows, Spool, pieces
from fedsi.data.store import KIND, NAMES, write_folder
from fedsi.data.subwords import SubwordVocabulary
from fedsi.data.unigram import unigram_log_probabilities, unigram_loss
from fedsi.data.vocabulary import Vocabulary, WordVocabulary
from fedsi.data.word_ids import WordIds
from fedsi.data.word_list import read_word_list
from fedsi.data.words import share_without_spaces
from fedsi.experiment import DataSettings
from fedsi.experiment.data import BY_COUNT, BY_USERS, BYTE_PAIRS

FILE = "file"
COVERAGE_SIZES = (1_000, 2_000, 4_000, 10_000, 20_000, 50_000)

Ids = NDArray[np.int32]


def build_store(corpus: Corpus, folder: Path, data: DataSettings, progress: Progress) -> None:
    """Encode a corpus into ``folder``, which appears only when it is complete.

    Nothing of the held-out clients, or sentences, reaches the vocabulary or the unigram model.

    Raises:
        UserError: The corpus has bad content or no usable client, or the disk is full.
    """

    def write(into: Path) -> None:
        with TemporaryDirectory(dir=into) as scratch:
            _write_store(corpus, into, Path(scratch), data, progress)

    write_folder(folder, write)


def _write_store(
    corpus: Corpus, into: Path, scratch: Path, data: DataSettings, progress: Progress
) -> None:
    encoder = _encoder(corpus, data, scratch)
    with Spool(scratch) as spool:
        entries = read_rows(corpus, data, encoder, spool, progress)
    rows = Rows.of(scratch)
    planned = plan(corpus, data, entries, rows)
    if isinstance(encoder, WordIds):
        chosen = _choose_words(encoder, rows, planned, data)
    else:
        chosen = _Chosen(encoder, lookup=None, words=None, coverage={})
    written = _write_tokens(into, rows, planned, chosen, data, progress)
    unigram = unigram_log_probabilities(written.training_targets)
    description = Description(
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        content_digest=written.digest.hexdigest(),
        training_clients=planned.training_clients,
        heldout_clients=len(planned.names) - planned.training_clients,
        training_examples=written.training_examples,
        heldout_examples=written.examples - written.training_examples,
        vocabulary_size=len(chosen.vocabulary),
        vocabulary_source=_source(data),
        sequence_length=data.sequence_length,
        unigram_loss=unigram_loss(unigram, written.heldout_targets),
        rows=entries.rows,
        rows_left_out=dict(entries.left_out),
        words_cut=written.words_cut / int(written.words.sum()),
        heldout_in_training=written.repeated.share(),
        without_spaces=_without_spaces(chosen.vocabulary, written.training_targets),
        clients_without_examples=planned.clients_without_examples,
    )
    statistics = written.statistics(planned.training_clients) | chosen.coverage
    (into / NAMES).write_text(json.dumps(planned.names), encoding="utf-8")
    (into / chosen.vocabulary.file_name).write_text(
        chosen.vocabulary.file_text(), encoding="utf-8", newline="\n"
    )
    np.save(into / "client_words.npy", written.words, allow_pickle=False)
    write_meta(into, KIND, description, unigram, statistics=statistics)


def _encoder(corpus: Corpus, data: DataSettings, scratch: Path) -> WordIds | SubwordVocabulary:
    if data.vocabulary == BYTE_PAIRS:
        texts = training_texts(corpus, data, survey(corpus, data))
        return SubwordVocabulary.trained(texts, data.vocabulary_size)
    if data.vocabulary.endswith(".json"):
        return SubwordVocabulary.from_file(Path(data.vocabulary))
    return WordIds(scratch, data.words)


def _source(data: DataSettings) -> str:
    return FILE if data.vocabulary_is_a_file else data.vocabulary


def _without_spaces(vocabulary: Vocabulary, counts: Ints) -> float:
    """Return ``Description.without_spaces``; counts are those of the token ids: ``[ids]``."""
    if not isinstance(vocabulary, WordVocabulary) or vocabulary.splitting == "characters":
        return 0.0
    return share_without_spaces(vocabulary.words, counts[FIRST_WORD:].tolist())


@dataclass(frozen=True)
class _Chosen:
    """A vocabulary, and how the numbers of the spool become its ids."""

    vocabulary: Vocabulary
    lookup: Ids | None
    """The id of each number; None where the spool holds ids already."""
    words: Ids | None
    """The word of each number, also where it has no id of its own."""
    coverage: dict[str, Any]

    def ids(self, numbers: Ids) -> Ids:
        return numbers + np.int32(0) if self.lookup is None else self.lookup[numbers]


def _choose_words(encoder: WordIds, rows: Rows, planned: Plan, data: DataSettings) -> _Chosen:
    ranks = encoder.same_words()
    counts = _word_counts(rows, planned, ranks, users=False)
    if data.vocabulary in {BY_COUNT, BY_USERS}:
        users = data.vocabulary == BY_USERS
        score = _word_counts(rows, planned, ranks, users=True) if users else counts
        # Ranks are alphabetical, so a stable sort leaves ties in alphabetical order.
        order = np.argsort(-score, kind="stable")[: data.vocabulary_size]
        best: list[int] = order[score[order] > 0].tolist()
        words = encoder.words(best)
        id_of = dict(zip(best, range(FIRST_WORD, FIRST_WORD + len(best)), strict=True))
    else:
        words = read_word_list(Path(data.vocabulary), data.vocabulary_size, data.words)
        id_of = {
            rank: FIRST_WORD + place
            for place, rank in enumerate(encoder.ranks(words))
            if rank is not None
        }
    id_of_rank = np.full(len(counts), OOV, dtype=np.int32)
    id_of_rank[list(id_of)] = list(id_of.values())
    return _Chosen(WordVocabulary(words, data.words), id_of_rank[ranks], ranks, _coverage(counts))


def _word_counts(rows: Rows, planned: Plan, ranks: Ids, *, users: bool) -> Ints:
    """Count the training clients' words, or for each word the training clients that use it.

    Returns:
        Per rank: ``[words]``.
    """
    number = int(ranks.max()) + 1
    counts = np.zeros(number, dtype=np.int64)
    for chunk in _training_chunks(rows, planned):
        words = ranks[chunk.tokens].astype(np.int64)
        if users:
            pairs = np.repeat(chunk.clients, chunk.lengths) * number + words
            words = np.unique(pairs) % number
        counts += np.bincount(words, minlength=number)
    return counts


def _training_chunks(rows: Rows, planned: Plan) -> Iterator[Chunk]:
    training = planned.training_clients
    for chunk in rows.by_client(planned.clients, len(planned.names)):
        mine = int(np.searchsorted(chunk.clients, training))
        if not mine:
            return
        lengths = chunk.lengths[:mine]
        yield Chunk(chunk.clients[:mine], lengths, chunk.tokens[: lengths.sum()])


def _coverage(counts: Ints) -> dict[str, Any]:
    """Return how much of the training clients' text the most frequent words are."""
    covered = np.cumsum(np.sort(counts)[::-1]) / counts.sum()
    sizes = [size for size in COVERAGE_SIZES if size < len(covered)]
    shares = {f"{size}": float(covered[size - 1]) for size in sizes}
    return {"distinct_words": int((counts > 0).sum()), "vocabulary_coverage": shares}


@dataclass
class _Written:
    """What was counted while the tokens were written."""

    clients: InitVar[int]
    tokens: InitVar[int]
    rows: InitVar[int]
    words: Ints = field(init=False)
    oov_words: Ints = field(init=False)
    sentences: Ints = field(init=False)
    training_targets: Ints = field(init=False)
    heldout_targets: Ints = field(init=False)
    training_examples: int = 0
    digest: ContentDigest = field(default_factory=ContentDigest)
    words_cut: int = 0
    repeated: Repeated = field(init=False)

    def __post_init__(self, clients: int, tokens: int, rows: int) -> None:
        self.repeated = Repeated(rows)
        self.words, self.oov_words, self.sentences = np.zeros((3, clients), dtype=np.int64)
        self.training_targets, self.heldout_targets = np.zeros((2, tokens), dtype=np.int64)

    @property
    def examples(self) -> int:
        return int(self.sentences.sum())

    def statistics(self, training: int) -> dict[str, Any]:
        """Return what a person wants to know of a corpus."""
        quantiles = np.quantile(self.words, (0.1, 0.5, 0.9, 0.99))
        own, unseen = self.words[:training].sum(), self.words[training:].sum()
        return {
            "words": int(own + unseen),
            "training_words": int(own),
            "heldout_words": int(unseen),
            "words_per_client": dict(zip(("p10", "p50", "p90", "p99"), quantiles, strict=True)),
            "oov_rate_training": float(self.oov_words[:training].sum() / own),
            "oov_rate_heldout": float(self.oov_words[training:].sum() / unseen),
        }


def _write_tokens(
    into: Path, rows: Rows, planned: Plan, chosen: _Chosen, data: DataSettings, progress: Progress
) -> _Written:
    clients, size = len(planned.names), len(chosen.vocabulary)
    written = _Written(clients, size, len(rows.lengths))
    length, done = data.sequence_length, 0
    dtype = np.uint16 if size <= np.iinfo(np.uint16).max else np.int32
    with ExitStack() as stack:
        tokens = stack.enter_context(_ArrayWriter(into / "tokens.npy", dtype))
        starts = stack.enter_context(_ArrayWriter(into / "sentence_starts.npy", np.int64))
        starts.append(np.zeros(1, dtype=np.int64))
        for chunk in rows.by_client(planned.clients, clients):
            done += len(chunk.lengths)
            words = chunk.tokens if chosen.words is None else chosen.words[chunk.tokens]
            heldout = chunk.clients >= planned.training_clients
            written.repeated.add(words, chunk.lengths, heldout)
            whole = pieces(chunk, length) if data.long_texts == "split" else chunk
            ids, lengths = _count_chunk(written, whole, chosen, planned.training_clients, length)
            _digest_chunk(written.digest, planned, whole, ids, lengths)
            starts.append(len(tokens) + np.cumsum(lengths))
            tokens.append(ids)
            progress("encoding", done, len(rows.lengths))
    client_starts = np.append(0, np.cumsum(written.sentences))
    np.save(into / "client_starts.npy", client_starts, allow_pickle=False)
    return written


def _count_chunk(
    written: _Written, chunk: Chunk, chosen: _Chosen, training: int, length: int
) -> tuple[Ids, Ints]:
    """Encode a chunk, cut its sentences, and add it to the counts."""
    ids = chosen.ids(chunk.tokens)
    owners = np.repeat(chunk.clients, chunk.lengths)
    clients, size = len(written.words), len(written.training_targets)
    written.words += np.bincount(owners, minlength=clients)
    written.oov_words += np.bincount(owners[ids == OOV], minlength=clients)
    written.sentences += np.bincount(chunk.clients, minlength=clients)
    places = np.arange(len(ids)) - np.repeat(
        np.cumsum(chunk.lengths) - chunk.lengths, chunk.lengths
    )
    kept = places < length
    short, seen = chunk.lengths < length, owners < training
    mine = chunk.clients < training
    written.training_targets += np.bincount(ids[kept & seen], minlength=size)
    written.heldout_targets += np.bincount(ids[kept & ~seen], minlength=size)
    written.training_targets[EOS] += (short & mine).sum()
    written.heldout_targets[EOS] += (short & ~mine).sum()
    written.training_examples += int(mine.sum())
    written.words_cut += len(ids) - int(kept.sum())
    return ids[kept], np.minimum(chunk.lengths, length)


def _digest_chunk(
    digest: ContentDigest, planned: Plan, chunk: Chunk, ids: Ids, lengths: Ints
) -> None:
    """Add the training clients of a chunk to the digest.

    Args:
        digest: Changed in place.
        planned: Has the clients' names.
        chunk: Whose sentences it is.
        ids: Of all sentences, cut: ``[tokens]``.
        lengths: Of each of them: ``[rows]``.
    """
    borders = np.flatnonzero(np.diff(chunk.clients, prepend=-1))
    ends, owners = [*borders[1:].tolist(), len(lengths)], chunk.clients[borders].tolist()
    starts = np.append(0, np.cumsum(lengths))
    for client, first, last in zip(owners, borders.tolist(), ends, strict=True):
        if client < planned.training_clients:
            tokens = ids[starts[first] : starts[last]]
            digest.add(planned.names[client], lengths[first:last], tokens)


class _ArrayWriter:
    """Appends to a ``.npy`` file whose length is not known before the end."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._file: IO[bytes]

    def __enter__(self) -> "_ArrayWriter":
        self._file = self._path.open("wb")
        self._write_header()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()

    def __len__(self) -> int:
        return self._length

    def append(self, values: NDArray[Any]) -> None:
        self._file.write(values.astype(self._dtype).tobytes())
        self._length += len(values)

    def _write_header(self) -> None:
        # NumPy pads the header so that the length may grow without moving the data.
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
