"""From the name of a corpus to a population on disk, built once and found again by its content."""

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

from fedsi.data import pydocs, store, synthetic
from fedsi.data.corpus import Corpus, Progress, silent
from fedsi.data.population import FORMAT, Population, read_meta
from fedsi.data.tabular import tabular_corpus
from fedsi.errors import UserError
from fedsi.experiment import DataSettings
from fedsi.files import sha256_of_file

DEFAULT_CACHE = Path.home() / ".cache" / "fedsi"

_OPENERS: dict[str, Callable[[Path], Population]] = {
    store.KIND: store.StoredPopulation,
    synthetic.KIND: synthetic.open_synthetic,
}


def open_population(folder: Path) -> Population:
    """Open a population folder.

    Raises:
        UserError: The folder holds no population, or one of another version.
    """
    kind = read_meta(folder).get("kind")
    if kind not in _OPENERS:
        raise UserError(f"the population in {folder} is of the unknown kind {kind!r}")
    return _OPENERS[kind](folder)


def prepare(data: DataSettings, cache: Path = DEFAULT_CACHE, progress: Progress = silent) -> Path:
    """Return the population folder for these settings, building it if it is not in the cache.

    Args:
        data: Which corpus, and how it becomes sequences.
        cache: Folder for extracted corpora and built populations.
        progress: Told how far the work is.

    Raises:
        UserError: The corpus is missing or cannot be used.
    """
    if data.corpus == synthetic.KIND:
        return _prepare_synthetic(data, cache)
    if data.corpus == pydocs.NAME:
        corpus = _pydocs_corpus(cache, progress)
        if corpus is None:
            warnings.warn(
                "the sources of the installed packages are missing, so the pydocs corpus cannot be "
                "made here; using the synthetic corpus instead",
                stacklevel=2,
            )
            return _prepare_synthetic(data, cache)
    else:
        corpus = tabular_corpus(Path(data.corpus), data.user_column, data.text_column)
    folder = cache / "populations" / _key(data, corpus.sha256)
    if not folder.exists():
        store.build_store(
            corpus,
            folder,
            vocabulary_size=data.vocabulary_size,
            sequence_length=data.sequence_length,
            heldout_fraction=data.heldout_fraction,
            progress=progress,
        )
    return folder


def _pydocs_corpus(cache: Path, progress: Progress) -> Corpus | None:
    path = cache / "corpora" / f"pydocs-{pydocs.cache_key()}.jsonl"
    if not path.exists() and pydocs.extract(path, progress) < pydocs.FEWEST_CLIENTS:
        return None
    rows = tabular_corpus(path, "user", "text").rows
    return Corpus(name=pydocs.NAME, sha256=sha256_of_file(path), rows=rows)


def _prepare_synthetic(data: DataSettings, cache: Path) -> Path:
    if data.population < 2:
        raise UserError(
            "data.population = 1 is not allowed: one client to train on and one to "
            "hold out are needed, so at least 2"
        )
    folder = cache / "populations" / _key(data, f"{synthetic.KIND} {data.population}")
    if not folder.exists():
        population = synthetic.make_synthetic(
            data.population, data.heldout_fraction, data.vocabulary_size, data.sequence_length
        )
        store.write_folder(folder, lambda into: synthetic.write_synthetic(into, population))
    return folder


def _key(data: DataSettings, content: str) -> str:
    """Return a folder name that changes with the content, the protocol and the format."""
    protocol = [
        FORMAT,
        content,
        data.corpus if data.corpus in {pydocs.NAME, synthetic.KIND} else Path(data.corpus).name,
        data.user_column,
        data.text_column,
        data.vocabulary_size,
        data.sequence_length,
        data.heldout_fraction,
    ]
    return hashlib.sha256(json.dumps(protocol).encode()).hexdigest()[:24]
