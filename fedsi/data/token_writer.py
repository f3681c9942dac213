"""Writing of a store's tokens, with statistics."""

from contextlib import ExitStack
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedsi.data.chosen_words import Chosen, Ids
from fedsi.data.content_hash import ContentDigest
from fedsi.data.corpus import Progress
from fedsi.data.ingest import Assignment
from fedsi.data.protocol import EOS, OOV
from fedsi.data.repeated_sentences import Repeated
from fedsi.data.spool import Chunk, Ints, SpooledRows, pieces
from fedsi.experiment import DataSettings


@dataclass
class TokenCounts:
    """Counts collected while tokens are written."""

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
        """Number of sentences of all clients."""
        return int(self.sentences.sum())

    def statistics(self, training: int) -> dict[str, Any]:
        """Return the statistics of a corpus that users want to know."""
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


def write_tokens(
    into: Path,
    rows: SpooledRows,
    assigned: Assignment,
    chosen: Chosen,
    data: DataSettings,
    progress: Progress,
) -> TokenCounts:
    """Write the sentences of all clients as token ids, client by client.

    Args:
        into: Folder of the store; ``tokens.npy``, ``sentence_starts.npy`` (both in the order of the
            clients) and ``client_starts.npy`` are created in it.
        rows: All rows of the corpus.
        assigned: The client of each row.
        chosen: The vocabulary.
        data: The sequence length, and what becomes of longer texts.
        progress: Called with the number of rows written.
    """
    clients, size = len(assigned.names), len(chosen.vocabulary)
    written = TokenCounts(clients, size, len(rows.lengths))
    length, done = data.sequence_length, 0
    dtype = np.uint16 if size <= np.iinfo(np.uint16).max else np.int32
    with ExitStack() as stack:
        tokens = stack.enter_context(ArrayWriter(into / "tokens.npy", dtype))
        starts = stack.enter_context(ArrayWriter(into / "sentence_starts.npy", np.int64))
        starts.append(np.zeros(1, dtype=np.int64))
        for chunk in rows.by_client(assigned.clients, clients):
            done += len(chunk.lengths)
            words = chunk.tokens if chosen.words is None else chosen.words[chunk.tokens]
            heldout = chunk.clients >= assigned.training_clients
            written.repeated.add(words, chunk.lengths, heldout)
            whole = pieces(chunk, length) if data.long_texts == "split" else chunk
            ids, lengths = _count_chunk(written, whole, chosen, assigned.training_clients, length)
            _digest_chunk(written.digest, assigned, whole, ids, lengths)
            starts.append(len(tokens) + np.cumsum(lengths))
            tokens.append(ids)
            progress("encoding", done, len(rows.lengths))
    client_starts = np.append(0, np.cumsum(written.sentences))
    np.save(into / "client_starts.npy", client_starts, allow_pickle=False)
    return written


def _count_chunk(
    written: TokenCounts, chunk: Chunk, chosen: Chosen, training: int, length: int
) -> tuple[Ids, Ints]:
    """Encode a chunk, truncate its sentences, and add it to the counts."""
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
    digest: ContentDigest, assigned: Assignment, chunk: Chunk, ids: Ids, lengths: Ints
) -> None:
    """Add the training clients of a chunk to the digest.

    Args:
        digest: Updated in place.
        assigned: Provides the clients' names.
        chunk: The chunk.
        ids: Token ids of all its sentences, truncated, ``[tokens]``.
        lengths: Length of each sentence, ``[rows]``.
    """
    borders = np.flatnonzero(np.diff(chunk.clients, prepend=-1))
    ends, owners = [*borders[1:].tolist(), len(lengths)], chunk.clients[borders].tolist()
    starts = np.append(0, np.cumsum(lengths))
    for client, first, last in zip(owners, borders.tolist(), ends, strict=True):
        if client < assigned.training_clients:
            tokens = ids[starts[first] : starts[last]]
            digest.add(assigned.names[client], lengths[first:last], tokens)


class ArrayWriter:
    """Appends to a ``.npy`` file whose final length is not known in advance.

    Args:
        path: The file.
        dtype: Its dtype.
    """

    def __init__(self, path: Path, dtype: Any) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._file: IO[bytes]

    def __enter__(self) -> "ArrayWriter":
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
        """Append numbers, converted to the file's dtype."""
        self._file.write(values.astype(self._dtype).tobytes())
        self._length += len(values)

    def _write_header(self) -> None:
        # NumPy pads the header, so the length may grow without moving the data.
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
