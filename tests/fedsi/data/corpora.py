"""Small corpora in memory, their stores, and the content of such stores in words."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fedsi.data.build_store import build_store
from fedsi.data.corpus import Corpus, Row, silent
from fedsi.data.protocol import EOS
from fedsi.data.token_store import NAMES, StoredPopulation
from fedsi.experiment import DataSettings

SMALL: dict[str, Any] = {"vocabulary_size": 1000, "sequence_length": 8, "heldout_fraction": 0.3}


def corpus(rows: Iterable[Row]) -> Corpus:
    kept = list(rows)
    return Corpus("test", "0" * 64, lambda: iter(kept))


def rows_of(texts: Mapping[str, Iterable[str]]) -> list[Row]:
    return [Row(client, client, text) for client, lines in texts.items() for text in lines]


def letters(number: int) -> str:
    """Return a number written in letters, because digits are not words."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def own_words(clients: int) -> dict[str, list[str]]:
    """Return clients with two sentences each and a word that no other client has."""
    return {f"c{k}": [f"own{letters(k)} shared", f"shared own{letters(k)}"] for k in range(clients)}


def built(folder: Path, rows: Iterable[Row], **settings: Any) -> StoredPopulation:
    build_store(corpus(rows), folder, DataSettings(**SMALL | settings), silent)
    return StoredPopulation(folder)


class Content(NamedTuple):
    """The sentences of each client in words; a client may be in training and held out."""

    training: dict[str, list[str]]
    heldout: dict[str, list[str]]


def content_of(folder: Path) -> Content:
    population = StoredPopulation(folder)
    vocabulary, description = population.vocabulary(), population.description
    names: list[str] = json.loads((folder / NAMES).read_text(encoding="utf-8"))
    texts = [
        [
            vocabulary.decode([t for t in row if t > EOS])
            for row in population.examples(client).tolist()
        ]
        for client in range(len(names))
    ]
    first = description.training_clients
    return Content(
        dict(zip(names[:first], texts[:first], strict=True)),
        dict(zip(names[first:], texts[first:], strict=True)),
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the name and the content of every file."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
