"""The memory-mapped token store: a corpus encoded once, with O(1) access to any client.

Layout of the folder (little-endian ``.npy``)::

    meta.json              kind, format, description, corpus statistics
    vocabulary.txt         one word per line; or tokenizer.json
    client_names.json      the clients' ids in the corpus, in order of their indices; null for a
                           client of another shard
    client_words.npy       int64 [clients], words before truncation to the protocol's length
    unigram.npy            log probability of each token id in the training clients' unigram model
    tokens.npy             word ids of all sentences, truncated to the protocol's length
    sentence_starts.npy    int64 [sentences + 1], into tokens
    client_starts.npy      int64 [clients + 1], into sentences
    sentence_answers.npy   int32 [sentences], only with labels: the number of each answer, from 1
    answers.json           only with labels: the labels of each answer, as ``answer_key`` writes
    checksums.json         checksums of all files
"""

import fcntl
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsi.checksums import checksums_of
from fedsi.data.labels import Answers, answers_of, with_answers
from fedsi.data.population import Description, load_array, read_file, read_meta
from fedsi.data.protocol import Tokens, pad_examples
from fedsi.data.vocabulary import VOCABULARY_FILES, Vocabulary, load_vocabulary
from fedsi.files import cannot_write

KIND = "store"
NAMES = "client_names.json"
SENTENCE_ANSWERS, ANSWERS = "sentence_answers", "answers.json"
_PART = ".part-"
_LOCK = "lock"


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
        self.unigram_log_probabilities = load_array(folder, "unigram")[:]
        self._tokens = load_array(folder, "tokens")
        self._sentences = load_array(folder, "sentence_starts")
        self._clients = load_array(folder, "client_starts")
        labelled = (folder / ANSWERS).exists()
        self._answers = load_array(folder, SENTENCE_ANSWERS) if labelled else None
        self.answers: Answers | None = None
        if labelled:
            self.answers = answers_of(json.loads(read_file(folder, ANSWERS)))

    def count(self, client: int) -> int:
        """Return how many examples a client has."""
        return int(self._clients[client + 1] - self._clients[client])

    def examples(self, client: int, places: NDArray[np.int64] | None = None) -> Tokens:
        """Return examples of a client as rows of the protocol."""
        if not 0 <= client < len(self._clients) - 1:
            raise IndexError(f"client {client} of {len(self._clients) - 1}")
        first, last = self._clients[client], self._clients[client + 1]
        starts = np.array(self._sentences[first : last + 1])
        if places is None:
            tokens, starts = self._tokens[starts[0] : starts[-1]], starts - starts[0]
        else:
            index, starts = _gather(starts, places)
            tokens = self._tokens.at(index)
        rows = pad_examples(
            np.asarray(tokens, dtype=np.int32), starts, self.description.sequence_length
        )
        if self._answers is None:
            return rows
        own = self._answers[first:last]
        return with_answers(rows, own if places is None else own[places])

    def work(self, client: int, example_cap: int | None) -> int:
        """Return the approximate number of target tokens in a client's first examples."""
        first, last = int(self._clients[client]), int(self._clients[client + 1])
        examples = last - first
        # The last token of each example is not stored.
        tokens = int(self._sentences[last] - self._sentences[first]) + examples
        return tokens * min(examples, example_cap or examples) // max(examples, 1)

    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary of the token ids."""
        for name in VOCABULARY_FILES:
            if (self._folder / name).exists():
                read_file(self._folder, name)
        return load_vocabulary(self._folder)

    def find(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the index of each client, -1 for unknown ids."""
        return np.array([self._index_of.get(name, -1) for name in names], dtype=np.int64)

    def names(self) -> list[str]:
        """Return the ids of all clients, in the order of their indices.

        In a shard of a population the clients of other shards have an empty id.
        """
        return [name or "" for name in self._listed()]

    def _listed(self) -> list[str | None]:
        return list(json.loads(read_file(self._folder, NAMES)))

    @cached_property
    def _index_of(self) -> dict[str, int]:
        # Iterate backwards so that a client with both training and held-out text resolves to its
        # training entry.
        places = reversed(list(enumerate(self._listed())))
        return {name: place for place, name in places if name is not None}


def _gather(
    starts: NDArray[np.int64], places: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of the tokens of some sentences, and where each begins after joining."""
    lengths = starts[places + 1] - starts[places]
    joined = np.append(0, np.cumsum(lengths))
    return np.repeat(starts[places] - joined[:-1], lengths) + np.arange(joined[-1]), joined


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a temporary folder with ``write`` and rename it to ``folder``, all or nothing.

    If another process has made the same folder first, its copy is kept. Temporary folders of killed
    processes are removed.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.parent)
        with _locked_part(folder.parent) as temporary:
            write(temporary)
            _write_checksums(temporary)
            if not folder.exists():
                temporary.rename(folder)
                # Removed last, so that the leftovers of a killed process can be recognised.
                (folder / _LOCK).unlink()
    except OSError as error:
        if not folder.exists():
            raise cannot_write(folder, error) from error


def _write_checksums(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir() if path.name != _LOCK)
    arrays = [name for name in names if name.endswith(".npy")]
    # Sorted, so that the same store has the same bytes whichever process wrote it.
    files = [name for name in names if name not in arrays]
    checksums_of(folder, files, arrays).write(folder)


@contextmanager
def _locked_part(parent: Path) -> Iterator[Path]:
    """Create a temporary folder that is locked, and remove what is left of it at the end."""
    locked = False
    while not locked:
        temporary = Path(tempfile.mkdtemp(prefix=_PART, dir=parent))
        try:
            with (temporary / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                # Another process may have considered it abandoned before it was locked.
                locked = (temporary / _LOCK).exists()
                if locked:
                    yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove half-written folders whose writer no longer holds its lock."""
    for part in parent.glob(f"{_PART}*"):
        try:
            with (part / _LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(part, ignore_errors=True)
        except OSError:  # another process is writing it
            continue
