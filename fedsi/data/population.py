"""Populations: the clients of a corpus, ready for training.

A population is a folder. Its ``meta.json`` gives its kind. The clients of a stored population are
in memory-mapped arrays beside it; those of a synthetic one are generated on access. Clients are
numbered, training clients first, then held-out ones.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsi.checksums import CheckedArray, Checksums
from fedsi.data.labels import Answers
from fedsi.data.protocol import Tokens
from fedsi.data.vocabulary import Vocabulary
from fedsi.errors import UserError

FORMAT = 7
"""Version of the folder's layout."""

_META = "meta.json"
_PADDED_TOKENS = 4_000_000
"""Tokens, including padding, in a block of a client's examples."""


@dataclass(frozen=True)
class Description:
    """Facts about a population that can be known without reading it. Sent to the server as JSON."""

    corpus: str
    corpus_sha256: str
    content_digest: str
    """Order-independent digest of the training clients' names and tokens. It is equal for equal
    training data, whatever its file is called and however it is distributed over nodes."""
    training_clients: int
    heldout_clients: int
    training_examples: int
    heldout_examples: int
    vocabulary_size: int
    """Number of token ids, special tokens included."""
    vocabulary_source: str
    """``count``, ``users``, ``bpe`` (all learned from training clients), ``file`` or
    ``synthetic``."""
    sequence_length: int
    unigram_loss: float
    """Loss of the training clients' unigram model over all held-out examples, in nats per token."""
    rows: int = 0
    """Number of rows read, of the corpus's wanted splits."""
    rows_left_out: dict[str, int] = field(default_factory=dict)
    """Unused rows among them, by reason."""
    words_cut: float = 0.0
    """Share of words that are not used because their text is longer than a sequence."""
    unknown_words: float = 0.0
    """Share of the training words that are not in the vocabulary."""
    heldout_in_training: float = 0.0
    """Share of held-out sentences that are training sentences too."""
    without_spaces: float = 0.0
    """Share of the characters of known training words whose scripts put no spaces between words; 0
    if tokens are characters or sub-words."""
    not_words: dict[str, float] = field(default_factory=dict)
    """Shares of a sample's tokens by kind: left out by the word rule (``numbers``, ``punctuation``,
    ``emoji``), or words of ``markup``; empty if tokens are sub-words."""
    clients_without_examples: int = 0
    """Clients that a partition gave no rows to or, without one, of which no row is used. They are
    not counted elsewhere."""
    grid: list[str] = field(default_factory=list)
    """Sizes of the examples of further clients, which come after the held-out ones, one for each
    size; see ``fedsi.data.generated``."""
    fresh: bool = False
    """Whether a client has other examples in each round."""

    @property
    def grid_clients(self) -> range:
        """Indices of the clients of the grid."""
        first = self.training_clients + self.heldout_clients
        return range(first, first + len(self.grid))


@dataclass(frozen=True, order=True)
class Shard:
    """A part of a population: every ``count``-th client, starting with client ``index``."""

    index: int = 0
    count: int = 1

    def hosts(self, clients: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which clients belong to the shard, ``[clients]``."""
        return np.asarray(clients % self.count == self.index)

    def __str__(self) -> str:
        return f"shard {self.index} of {self.count}"


WHOLE = Shard()
"""A whole population."""


class Population(Protocol):
    """The clients of a corpus."""

    description: Description
    unigram_log_probabilities: NDArray[np.float64]
    """Log probability of each token id under the training clients' unigram model."""

    @property
    def answers(self) -> Answers | None:
        """The right labels of each answer; None for a population without labels."""
        ...

    def count(self, client: int) -> int:
        """Return how many examples a client has, without reading them."""
        ...

    def examples(self, client: int, places: NDArray[np.int64] | None = None) -> Tokens:
        """Return examples of a client as rows of the protocol: ``[examples, sequence_length + 1]``.

        Rows have the length of the longest possible sequence. Requesting only the examples in use
        limits the memory for a client with many examples.

        Args:
            client: The client's index.
            places: Indices of its examples, in the wanted order; None for all.

        Raises:
            IndexError: There is no such client.
        """
        ...

    def work(self, client: int, example_cap: int | None) -> int:
        """Return the approximate number of target tokens in a client's first examples.

        Unlike ``examples`` it reads almost nothing. It is used to balance clients over nodes.
        """
        ...

    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary of the token ids."""
        ...

    def names(self) -> Sequence[str]:
        """Return the ids of all clients in the corpus, in the order of their indices."""
        ...

    def find(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the index of each client, -1 for unknown ids."""
        ...


@dataclass(frozen=True)
class ClientExamples:
    """A client's examples in a round, each read on access."""

    population: Population
    client: int
    round_number: int

    def __len__(self) -> int:
        return self.population.count(self.client)

    def __getitem__(self, places: NDArray[np.int64]) -> Tokens:
        if self.population.description.fresh:
            places = places + self.round_number * len(self)
        return self.population.examples(self.client, places)


def client_blocks(population: Population, client: int) -> Iterator[Tokens]:
    """Yield all examples of a client in blocks, so that a huge client needs little memory.

    Yields:
        ``[examples, sequence_length + 1]``, one empty block for a client without examples.
    """
    count = population.count(client)
    blocks = 1 + count * (population.description.sequence_length + 1) // _PADDED_TOKENS
    for places in np.array_split(np.arange(count), blocks):
        yield population.examples(client, places)


def write_meta(
    folder: Path, kind: str, description: Description, unigram: NDArray[np.float64], **more: Any
) -> None:
    """Write a population's ``meta.json`` and ``unigram.npy``.

    Args:
        folder: The population's folder.
        kind: The kind of population.
        description: Its description.
        unigram: ``Population.unigram_log_probabilities``.
        more: Further values for ``meta.json``.
    """
    np.save(folder / "unigram.npy", unigram, allow_pickle=False)
    meta = {"format": FORMAT, "kind": kind, "description": asdict(description), **more}
    (folder / _META).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def checksums(folder: Path) -> Checksums:
    """Read the checksums of a population's files.

    Raises:
        DamagedError: They are missing or damaged.
    """
    return Checksums.read(folder, _advice(folder))


def read_file(folder: Path, name: str) -> bytes:
    """Read a small file of a population.

    Raises:
        DamagedError: It is missing, or does not match its checksum.
    """
    return checksums(folder).read_file(folder / name, _advice(folder))


def read_meta(folder: Path) -> dict[str, Any]:
    """Read a population's ``meta.json``.

    Raises:
        UserError: It is missing, damaged or of another version.
    """
    try:
        version = json.loads((folder / _META).read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} holds no population; remove the folder and run again") from None
    if version != FORMAT:
        raise UserError(
            f"the population in {folder} has format {version}, expected {FORMAT}; "
            "remove the folder and run again"
        )
    return dict(json.loads(read_file(folder, _META)))


def shard_of(folder: Path) -> Shard:
    """Return the shard that a population's folder holds.

    Raises:
        UserError: The folder holds no population.
    """
    return Shard(**read_meta(folder).get("shard", {}))


def load_array(folder: Path, name: str) -> CheckedArray:
    """Map an array of a population into memory.

    Raises:
        DamagedError: It is missing or damaged.
    """
    return checksums(folder).map_array(folder / f"{name}.npy", _advice(folder))


def _advice(folder: Path) -> str:
    return f"remove the folder {folder} and run again"
