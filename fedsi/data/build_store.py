"""Construction of a token store: choice of the vocabulary, and encoding of the corpus."""

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fedsi.data.chosen_words import Chosen, choose_words
from fedsi.data.corpus import Corpus, Progress
from fedsi.data.ingest import Assignment, Entries, assign, read_rows, survey, training_texts
from fedsi.data.labels import LabelSet, answers_of
from fedsi.data.population import Description, write_meta
from fedsi.data.protocol import FIRST_WORD
from fedsi.data.spool import Ints, Spool, SpooledRows
from fedsi.data.subwords import SubwordVocabulary
from fedsi.data.token_store import ANSWERS, KIND, NAMES, SENTENCE_ANSWERS, write_folder
from fedsi.data.token_writer import write_tokens
from fedsi.data.unigram import unigram_log_probabilities, unigram_loss
from fedsi.data.vocabulary import LabelledVocabulary, Vocabulary, WordVocabulary
from fedsi.data.word_ids import WordIds
from fedsi.data.words import share_without_spaces
from fedsi.experiment import DataSettings
from fedsi.experiment.data import BYTE_PAIRS

FILE = "file"


def build_store(
    corpus: Corpus,
    folder: Path,
    data: DataSettings,
    progress: Progress,
    labels: LabelSet | None = None,
) -> None:
    """Encode a corpus into ``folder``, which appears only when it is complete.

    Held-out clients or sentences do not influence the vocabulary or the unigram model.

    Args:
        corpus: The corpus; with labels, ``Row.label`` is an ``answer_key``.
        folder: The store's folder.
        data: The vocabulary, the sequence length and the held-out clients.
        progress: Called to report progress.
        labels: The labels of a labelled corpus, whose words are in the vocabulary too.

    Raises:
        UserError: The corpus has bad content or no usable client, or the disk is full.
    """

    def write(into: Path) -> None:
        with TemporaryDirectory(dir=into) as scratch:
            _write_store(corpus, into, Path(scratch), data, progress, labels)

    write_folder(folder, write)


def _write_store(
    corpus: Corpus,
    into: Path,
    scratch: Path,
    data: DataSettings,
    progress: Progress,
    labels: LabelSet | None,
) -> None:
    encoder = _encoder(corpus, data, scratch)
    with Spool(scratch) as spool:
        entries = read_rows(corpus, data, encoder, spool, progress)
    rows = SpooledRows.of(scratch)
    assigned = assign(corpus, data, entries, rows)
    if isinstance(encoder, WordIds):
        chosen = choose_words(encoder, rows, assigned, data, labels.texts if labels else ())
    else:
        chosen = Chosen(encoder, lookup=None, words=None, coverage={})
    written = write_tokens(into, rows, assigned, chosen, data, progress)
    digest = written.digest.hexdigest()
    if labels:
        digest = _write_answers(into, rows, assigned, entries, digest)
    statistics = written.statistics(assigned.training_clients) | chosen.coverage
    unigram = unigram_log_probabilities(written.training_targets)
    description = Description(
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        content_digest=digest,
        training_clients=assigned.training_clients,
        heldout_clients=len(assigned.names) - assigned.training_clients,
        training_examples=written.training_examples,
        heldout_examples=written.examples - written.training_examples,
        vocabulary_size=len(chosen.vocabulary),
        vocabulary_source=_source(data),
        sequence_length=data.sequence_length,
        unigram_loss=unigram_loss(unigram, written.heldout_targets),
        rows=entries.rows,
        rows_left_out=dict(entries.left_out),
        words_cut=written.words_cut / int(written.words.sum()),
        unknown_words=statistics["oov_rate_training"],
        heldout_in_training=written.repeated.share(),
        without_spaces=_without_spaces(chosen.vocabulary, written.training_targets),
        not_words=entries.sample.shares(data.words) if isinstance(encoder, WordIds) else {},
        clients_without_examples=assigned.clients_without_examples,
    )
    (into / NAMES).write_text(json.dumps(assigned.names), encoding="utf-8")
    vocabulary = LabelledVocabulary(chosen.vocabulary, labels) if labels else chosen.vocabulary
    (into / vocabulary.file_name).write_text(vocabulary.file_text(), encoding="utf-8", newline="\n")
    np.save(into / "client_words.npy", written.words, allow_pickle=False)
    write_meta(into, KIND, description, unigram, statistics=statistics)


def _write_answers(
    into: Path, rows: SpooledRows, assigned: Assignment, entries: Entries, digest: str
) -> str:
    """Write the answers of all sentences; return the digest with those of training clients."""
    order = np.argsort(assigned.clients, kind="stable")
    numbers = rows.labels[order] + np.int32(1)
    np.save(into / f"{SENTENCE_ANSWERS}.npy", numbers, allow_pickle=False)
    (into / ANSWERS).write_text(json.dumps(list(entries.labels)), encoding="utf-8")
    answers = answers_of(list(entries.labels))
    training = assigned.clients[order] < assigned.training_clients
    return hashlib.sha256(digest.encode() + answers[numbers[training] - 1].tobytes()).hexdigest()


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
    """Return ``Description.without_spaces`` from the counts of token ids, ``[ids]``."""
    if not isinstance(vocabulary, WordVocabulary) or vocabulary.splitting == "characters":
        return 0.0
    return share_without_spaces(vocabulary.words, counts[FIRST_WORD:].tolist())
