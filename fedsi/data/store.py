"""The memory-mapped token store: a corpus, encoded once, O(1) access to any client.

Layout of the folder (little-endian ``.npy``)::

    meta.json              kind, format, description, corpus statistics
    vocabulary.txt         one word a line, in order of the ids after the special tokens
    unigram.npy            log probability of each token id, of the training clients' unigram model
    tokens.npy             word ids of all sentences, cut to the protocol's length
    sentence_starts.npy    int64 [sentences + 1], into tokens
    client_starts.npy      int64 [clients + 1], into sentences
    client_names.json      the clients' ids in the corpus, in order of their indices
"""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsi.data.corpus import Corpus, Progress
from fedsi.data.population import Description, load_array, read_meta, write_meta
from fedsi.data.protocol import OOV, Tokens, pad_examples, words
from fedsi.data.splits import hash_order, heldout_groups
from fedsi.data.unigram import unigram_log_probabilities, unigram_loss
from fedsi.data.vocabulary import Vocabulary
from fedsi.errors import UserError
from fedsi.files import cannot_write

KIND = "store"
_REPORT_EVERY = 5000
_NAMES = "client_names.json"


class StoredPopulation:
    """Clients in a memory-mapped token store.

    Args:
        folder: A folder that ``build_store`` made.

    Raises:
        UserError: The folder holds no complete store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.description = Description(**read_meta(folder)["description"])
        self.unigram_log_probabilities = load_array(folder, "unigram")
        self._tokens = load_array(folder, "tokens")
        self._sentences = load_array(folder, "sentence_starts")
        self._clients = load_array(folder, "client_starts")

    def examples(self, client: int) -> Tokens:
        """Return a client's examples as rows of the protocol."""
        if not 0 <= client < len(self._clients) - 1:
            raise IndexError(f"client {client} of {len(self._clients) - 1}")
        first, last = self._clients[client], self._clients[client + 1]
        starts = np.array(self._sentences[first : last + 1])
        tokens = np.array(self._tokens[starts[0] : starts[-1]], dtype=np.int32)
        return pad_examples(tokens, starts - starts[0], self.description.sequence_length)

    def find(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the index of each client.

        Raises:
            UserError: The store is damaged.
        """
        try:
            ids = json.loads((self._folder / _NAMES).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"the population in {self._folder} is damaged ({error}); remove the folder and "
                "run again"
            ) from None
        indices = {name: index for index, name in enumerate(ids)}
        return np.array([indices.get(name, -1) for name in names], dtype=np.int64)


@dataclass
class _Client:
    name: str
    group: str
    sentences: list[list[str]] = field(default_factory=list)


def build_store(
    corpus: Corpus,
    folder: Path,
    *,
    vocabulary_size: int,
    sequence_length: int,
    heldout_fraction: float,
    progress: Progress,
) -> None:
    """Encode a corpus into ``folder``, which appears only when it is complete.

    The vocabulary is counted on the training clients alone.

    Raises:
        UserError: The corpus has bad content or no usable client, or the disk is full.
    """
    clients = _read_clients(corpus, progress)
    groups = heldout_groups({c.name: c.group for c in clients}, heldout_fraction)
    training = [c for c in clients if c.group not in groups]
    heldout = sorted((c for c in clients if c.group in groups), key=lambda c: hash_order(c.name))
    if not heldout:
        raise UserError(
            f"the corpus {corpus.name} has {len(clients)} client(s) with text; at least 2 are "
            "needed, one to train on and one to hold out"
        )
    counts = Counter(word for c in training for sentence in c.sentences for word in sentence)
    vocabulary = Vocabulary.from_counts(counts, vocabulary_size)
    progress("encoding", 0, None)
    encoded = _encode([*training, *heldout], vocabulary, sequence_length)
    border = encoded.client_starts[len(training)]
    examples = pad_examples(encoded.tokens, encoded.sentence_starts, sequence_length)
    unigram = unigram_log_probabilities(examples[:border], len(vocabulary))
    description = Description(
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        training_clients=len(training),
        heldout_clients=len(heldout),
        training_examples=int(border),
        heldout_examples=len(examples) - int(border),
        vocabulary_size=len(vocabulary),
        sequence_length=sequence_length,
        unigram_loss=unigram_loss(unigram, examples[border:]),
    )

    def write(into: Path) -> None:
        _save(into, encoded, vocabulary)
        names = json.dumps([client.name for client in [*training, *heldout]])
        (into / _NAMES).write_text(names + "\n", encoding="utf-8")
        statistics = _statistics(encoded, len(training))
        write_meta(into, KIND, description, unigram, statistics=statistics)

    write_folder(folder, write)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a temporary folder with ``write`` and rename it to ``folder``, all or nothing.

    If another process made the same folder first, its copy stands.

    Raises:
        UserError: The disk is full or the place cannot be written.
    """
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
        write(temporary)
        if not folder.exists():
            temporary.rename(folder)
    except OSError as error:
        if not folder.exists():
            raise cannot_write(folder, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _read_clients(corpus: Corpus, progress: Progress) -> list[_Client]:
    clients: dict[str, _Client] = {}
    rows = with_text = 0
    for rows, row in enumerate(corpus.rows(), start=1):
        sentence = words(row.text)
        if sentence:
            with_text += 1
            client = clients.setdefault(row.client, _Client(row.client, row.group))
            client.sentences.append(sentence)
        if rows % _REPORT_EVERY == 0:
            progress("reading " + corpus.name, rows, None)
    if not clients:
        raise UserError(
            f"the corpus {corpus.name} has no usable client: {rows} row(s), {with_text} with words "
            "in the text column; choose another column with data.text_column"
        )
    return sorted(clients.values(), key=lambda client: client.name)


@dataclass(frozen=True)
class _Encoded:
    """Sentences as ids. ``lengths`` are in words before the cut to the protocol's length."""

    tokens: Tokens
    sentence_starts: NDArray[np.int64]
    client_starts: NDArray[np.int64]
    words: NDArray[np.int64]
    oov_words: NDArray[np.int64]


def _encode(clients: Sequence[_Client], vocabulary: Vocabulary, sequence_length: int) -> _Encoded:
    sentences = [s for c in clients for s in c.sentences]
    ids = [vocabulary.encode(sentence) for sentence in sentences]
    kept = [sentence[:sequence_length] for sentence in ids]
    dtype = np.uint16 if len(vocabulary) <= np.iinfo(np.uint16).max else np.int32
    total = sum(map(len, kept))
    tokens = np.fromiter((token for sentence in kept for token in sentence), dtype, total)
    client_starts = _starts([len(c.sentences) for c in clients])
    return _Encoded(
        tokens=tokens,  # type: ignore[arg-type]  # narrower on disk than in memory
        sentence_starts=_starts([len(sentence) for sentence in kept]),
        client_starts=client_starts,
        words=np.add.reduceat([len(s) for s in ids], client_starts[:-1]),
        oov_words=np.add.reduceat([s.count(OOV) for s in ids], client_starts[:-1]),
    )


def _starts(lengths: list[int]) -> NDArray[np.int64]:
    return np.fromiter(accumulate(lengths, initial=0), np.int64, len(lengths) + 1)


def _statistics(encoded: _Encoded, training: int) -> dict[str, object]:
    """Return what a person wants to know of a corpus."""
    quantiles = np.quantile(encoded.words, (0.1, 0.5, 0.9, 0.99))
    return {
        "words": int(encoded.words.sum()),
        "training_words": int(encoded.words[:training].sum()),
        "heldout_words": int(encoded.words[training:].sum()),
        "words_per_client": dict(zip(("p10", "p50", "p90", "p99"), quantiles, strict=True)),
        "oov_rate_training": float(
            encoded.oov_words[:training].sum() / encoded.words[:training].sum()
        ),
        "oov_rate_heldout": float(
            encoded.oov_words[training:].sum() / encoded.words[training:].sum()
        ),
    }


def _save(folder: Path, encoded: _Encoded, vocabulary: Vocabulary) -> None:
    np.save(folder / "tokens.npy", encoded.tokens, allow_pickle=False)
    np.save(folder / "sentence_starts.npy", encoded.sentence_starts, allow_pickle=False)
    np.save(folder / "client_starts.npy", encoded.client_starts, allow_pickle=False)
    text = "".join(word + "\n" for word in vocabulary.words)
    (folder / "vocabulary.txt").write_text(text, encoding="utf-8")
