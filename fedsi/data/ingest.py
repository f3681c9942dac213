"""Conversion of a corpus to a token store, in one streaming pass and bounded memory.

Rows are numbered and spooled to disk as they arrive. When all clients are known, the held-out
clients are chosen, the training clients' words are counted and the vocabulary is chosen. The
spooled numbers are then rewritten as the vocabulary's ids, client by client.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsi.data.corpus import Corpus, Progress, Row
from fedsi.data.left_out_rows import NO_TEXT, NO_WORDS
from fedsi.data.not_words import Sample
from fedsi.data.partition import partition
from fedsi.data.splits import hash_order, heldout_groups, is_heldout_sentence
from fedsi.data.spool import Spool, SpooledRows
from fedsi.errors import UserError
from fedsi.experiment import DataSettings

_BATCH_ROWS = 4096
_BATCH_CHARACTERS = 4_000_000
"""Rows encoded together: as many as both limits allow."""

Clients = NDArray[np.int32]


class BatchEncoder(Protocol):
    """Numbers words or sub-words."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the numbers of each text; an empty list for a text without words."""
        ...


@dataclass
class Entries:
    """The clients of a corpus in order of arrival, separately for training and held-out text."""

    names: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    heldout: list[bool] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    """Number of rows read."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Unused rows among them, by reason."""
    labelled: int = 0
    """Rows with a label of their own."""
    unused: set[str] = field(default_factory=set)
    """Clients of which no row is used."""
    sample: Sample = field(default_factory=Sample)
    """A sample of the texts."""
    _numbers: dict[tuple[bool, str], int] = field(default_factory=dict)

    def number(self, row: Row, group: str, heldout: bool) -> int:
        """Return the number of a row's client."""
        key = (heldout, row.client)
        if key not in self._numbers:
            self._numbers[key] = len(self.names)
            self.names.append(row.client)
            self.groups.append(group)
            self.heldout.append(heldout)
        return self._numbers[key]

    def label(self, row: Row, group: str) -> int:
        """Return the number of a row's label; the group replaces a missing label."""
        return self.labels.setdefault(row.label or group, len(self.labels))


@dataclass(frozen=True)
class Assignment:
    """The client of the store that each row of the corpus belongs to."""

    names: list[str]
    """The clients' ids, training clients first."""
    training_clients: int
    clients: Clients
    """The client of each row, ``[rows]``."""
    clients_without_examples: int = 0
    """Clients that a partition gave no rows to or, without one, of which no row is used."""


def read_rows(
    corpus: Corpus, data: DataSettings, encoder: BatchEncoder, spool: Spool, progress: Progress
) -> Entries:
    """Spool every usable row of a corpus.

    Raises:
        UserError: The corpus has bad content, or no usable row.
    """
    entries = Entries()
    for batch in _batches(chosen_rows(corpus, data)):
        entries.rows += len(batch)
        texts = [row.text for row, _ in batch]
        entries.sample.add(texts)
        ids = encoder.encode_batch(texts)
        kept = [
            (i, row, heldout)
            for i, (row, heldout) in zip(ids, batch, strict=True)
            if i and _has_text(row)
        ]
        if len(kept) < len(batch):
            left_out = [
                row for i, (row, _) in zip(ids, batch, strict=True) if not (i and _has_text(row))
            ]
            entries.left_out.update(NO_WORDS if _has_text(row) else NO_TEXT for row in left_out)
            entries.unused.update(row.client for row in left_out)
        entries.labelled += sum(bool(row.label) for _, row, _ in kept)
        spool.append(
            [i for i, _, _ in kept],
            [entries.number(row, group_of(row, data), heldout) for _, row, heldout in kept],
            [entries.label(row, group_of(row, data)) for _, row, _ in kept],
        )
        progress(f"reading {corpus.name}", entries.rows, None)
    entries.rows += corpus.left_out.counts.total()
    entries.left_out += corpus.left_out.counts
    entries.unused.difference_update(entries.names)
    if not entries.rows:
        raise UserError(f"the corpus {corpus.name} is empty: there is no row to read")
    if not entries.names:
        reasons = ", ".join(f"{n} {why}" for why, n in entries.left_out.items()) or "none"
        raise UserError(
            f"the corpus {corpus.name} has no usable client: {entries.rows} row(s) read, all left "
            f"out ({reasons}); choose other columns with data.user_column and data.text_column"
        )
    if data.partition == "dirichlet" and data.label_column and not entries.labelled:
        raise UserError(
            f"no row of the corpus {corpus.name} has a label in the column {data.label_column!r}; "
            "name another one with data.label_column, or none to deal by group"
        )
    return entries


def survey(corpus: Corpus, data: DataSettings) -> Entries:
    """Find the clients of a corpus, for settings that need them before texts are encoded."""
    entries = Entries()
    for row, heldout in chosen_rows(corpus, data):
        if _has_text(row):
            entries.number(row, group_of(row, data), heldout)
    return entries


def training_texts(corpus: Corpus, data: DataSettings, entries: Entries) -> Iterator[str]:
    """Yield the texts that are not held out."""
    training = {
        name
        for name, heldout in zip(entries.names, held_out(entries, data), strict=True)
        if not heldout
    }
    for row, heldout in chosen_rows(corpus, data):
        if not heldout and row.client in training:
            yield row.text


def held_out(entries: Entries, data: DataSettings) -> list[bool]:
    """Decide which clients are held out."""
    if data.heldout_split is not None or data.heldout_by == "sentences":
        return entries.heldout
    grouped = data.heldout_by == "groups" and len(set(entries.groups)) > 1
    groups = entries.groups if grouped else entries.names
    by_name = dict(zip(entries.names, groups, strict=True))
    chosen = heldout_groups(by_name, data.heldout_fraction)
    return [group in chosen for group in groups]


def assign(corpus: Corpus, data: DataSettings, entries: Entries, rows: SpooledRows) -> Assignment:
    """Order the clients: training clients by name, then held-out clients by hash.

    Raises:
        UserError: There is no training client, or no held-out client.
    """
    heldout = held_out(entries, data)
    training = [k for k, out in enumerate(heldout) if not out]
    unseen = [k for k, out in enumerate(heldout) if out]
    if not training or not unseen:
        raise UserError(_too_few(corpus, data, len(entries.names)))
    training.sort(key=lambda k: entries.names[k])
    unseen.sort(key=lambda k: hash_order(entries.names[k]))
    order = [*training, *unseen]
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    clients = place[rows.entries]
    names = [entries.names[k] for k in order]
    if data.partition == "natural":
        return Assignment(names, len(training), clients, len(entries.unused))
    return _partitioned(Assignment(names, len(training), clients), data, rows)


def _partitioned(natural: Assignment, data: DataSettings, rows: SpooledRows) -> Assignment:
    """Re-partition the training rows and number the clients that received some."""
    before = natural.training_clients
    training = natural.clients < before
    wanted = data.partition_clients or before
    dealt = partition(data, rows.labels[training], wanted)
    present, numbers = np.unique(dealt, return_inverse=True)
    clients = natural.clients - np.int32(before - len(present))
    clients[training] = numbers
    names = [*(f"part-{k}" for k in present), *natural.names[before:]]
    return Assignment(names, len(present), clients, wanted - len(present))


def _too_few(corpus: Corpus, data: DataSettings, clients: int) -> str:
    if data.heldout_split is not None:
        return (
            f"the corpus {corpus.name} has no text to train on beside its split "
            f"{data.heldout_split!r}; choose other splits with data.split and data.heldout_split"
        )
    if data.heldout_by == "sentences":
        return (
            f"with data.heldout_fraction = {data.heldout_fraction} the corpus {corpus.name} leaves "
            "no sentence to train on, or none held out; choose another share"
        )
    found = "one client" if clients else "no client"
    return (
        f"the corpus {corpus.name} has {found} with text; at least 2 are needed, one "
        "to train on and one to hold out; hold out sentences with data.heldout_by=sentences"
    )


def chosen_rows(corpus: Corpus, data: DataSettings) -> Iterator[tuple[Row, bool]]:
    """Yield the rows of the wanted splits, and whether each is already held out.

    Raises:
        UserError: A wanted split has no row.
    """
    seen: dict[str, None] = {}
    unseen = _heldout_test(data)
    for row in corpus.rows():
        seen.setdefault(row.split)
        heldout = unseen(row)
        if heldout or data.split is None or row.split == data.split:
            yield row, heldout
    for wanted in (data.split, data.heldout_split):
        if wanted is not None and wanted not in seen:
            there = ", ".join(sorted(filter(None, seen))) or "none"
            raise UserError(
                f"the corpus {corpus.name} has no split {wanted!r}; splits there: {there}; choose "
                "with data.split and data.heldout_split"
            )


def _heldout_test(data: DataSettings) -> Callable[[Row], bool]:
    if data.heldout_split is not None:
        return lambda row: row.split == data.heldout_split
    if data.heldout_by == "sentences":
        return lambda row: (
            (data.split is None or row.split == data.split)
            and is_heldout_sentence(row.client, row.text, data.heldout_fraction)
        )
    return lambda _row: False


def _has_text(row: Row) -> bool:
    """Whether a row counts as text; byte pairs would make tokens of white space too."""
    return bool(row.text) and not row.text.isspace()


def group_of(row: Row, data: DataSettings) -> str:
    """Return the group that a row's client is held out with."""
    if data.group_separator is None:
        return row.group
    return row.client.partition(data.group_separator)[0]


def _batches(rows: Iterator[tuple[Row, bool]]) -> Iterator[list[tuple[Row, bool]]]:
    batch: list[tuple[Row, bool]] = []
    characters = 0
    for item in rows:
        batch.append(item)
        characters += len(item[0].text)
        if len(batch) == _BATCH_ROWS or characters > _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
