"""Shards of a population: folders that hold some of its clients, one for each node's machine.

All shards of a population have its description, its vocabulary, its unigram model and its numbering
of clients; a shard has the texts and names of its own clients only.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsi.data import synthetic, token_store
from fedsi.data.population import (
    Description,
    Shard,
    load_array,
    read_file,
    read_meta,
    write_meta,
)
from fedsi.data.token_store import StoredPopulation, write_folder
from fedsi.data.token_writer import ArrayWriter
from fedsi.errors import UserError


def write_shards(population: Path, into: Path, count: int) -> list[Path]:
    """Write all shards of a population and return their folders: ``shard-0``, ``shard-1``, ...

    Args:
        population: The folder of a whole population.
        into: Folder of the shards' folders.
        count: Number of shards.

    Raises:
        UserError: There are more shards than clients, a shard's folder exists, or the disk is full.
    """
    meta = read_meta(population)
    description = Description(**meta["description"])
    clients = description.training_clients + description.heldout_clients
    if not 1 <= count <= clients:
        raise UserError(
            f"{count} shards are not possible: expected 1 to {clients}, the number of clients"
        )
    folders = [into / f"shard-{index}" for index in range(count)]
    for folder in folders:
        if folder.exists():
            raise UserError(f"{folder} exists already; remove it, or name another folder")
    write = _write_stored if meta["kind"] == token_store.KIND else _write_synthetic
    for index, folder in enumerate(folders):
        write_folder(folder, partial(write, population, Shard(index, count)))
    return folders


def _write_synthetic(population: Path, shard: Shard, into: Path) -> None:
    """Write a shard of a synthetic population, whose clients are generated on access."""
    meta = read_meta(population)
    write_meta(
        into,
        synthetic.KIND,
        Description(**meta["description"]),
        load_array(population, "unigram")[:],
        traits=meta["traits"],
        shard=asdict(shard),
    )


def _write_stored(population: Path, shard: Shard, into: Path) -> None:
    """Write a shard of a token store; the clients of other shards have no sentence in it."""
    meta = read_meta(population)
    clients, sentences, tokens = (
        load_array(population, name) for name in ("client_starts", "sentence_starts", "tokens")
    )
    starts = clients[:]
    hosted = shard.hosts(np.arange(len(starts) - 1))
    own = np.where(hosted, np.diff(starts), 0)
    np.save(into / "client_starts.npy", np.append(0, np.cumsum(own)), allow_pickle=False)
    words = np.where(hosted, load_array(population, "client_words")[:], 0)
    np.save(into / "client_words.npy", words, allow_pickle=False)
    dtype = tokens[:0].dtype
    _write_answers(population, into, starts, np.flatnonzero(own))
    with (
        ArrayWriter(into / "tokens.npy", dtype) as texts,
        ArrayWriter(into / "sentence_starts.npy", np.int64) as ends,
    ):
        ends.append(np.zeros(1, np.int64))
        for client in np.flatnonzero(own).tolist():
            places = sentences[int(starts[client]) : int(starts[client + 1]) + 1]
            ends.append(len(texts) + places[1:] - places[0])
            texts.append(tokens[int(places[0]) : int(places[-1])])
    _write_names(into, StoredPopulation(population).names(), hosted)
    vocabulary = StoredPopulation(population).vocabulary()
    content = read_file(population, vocabulary.file_name)
    (into / vocabulary.file_name).write_bytes(content)
    write_meta(
        into,
        token_store.KIND,
        Description(**meta["description"]),
        load_array(population, "unigram")[:],
        statistics=meta["statistics"],
        shard=asdict(shard),
    )


def _write_answers(
    population: Path, into: Path, starts: NDArray[np.int64], clients: NDArray[np.int64]
) -> None:
    """Write the answers of some clients' sentences, if the population has labels."""
    if not (population / token_store.ANSWERS).exists():
        return
    content = read_file(population, token_store.ANSWERS)
    (into / token_store.ANSWERS).write_bytes(content)
    answers = load_array(population, token_store.SENTENCE_ANSWERS)
    with ArrayWriter(into / f"{token_store.SENTENCE_ANSWERS}.npy", np.int32) as own:
        for client in clients.tolist():
            own.append(answers[int(starts[client]) : int(starts[client + 1])])


def _write_names(into: Path, names: Sequence[str], hosted: NDArray[np.bool_]) -> None:
    """Write the clients' names, null for clients of other shards."""
    own = [name if mine else None for name, mine in zip(names, hosted, strict=True)]
    (into / token_store.NAMES).write_text(json.dumps(own), encoding="utf-8")
