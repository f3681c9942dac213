"""Preparation of a population from the name of a corpus, cached by its content."""

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fedsi.data import generated, pydocs, pydocs_names, synthetic, token_store
from fedsi.data.build_store import build_store
from fedsi.data.cache import DEFAULT_CACHE, cache_folder
from fedsi.data.corpus import Corpus, Progress, silent
from fedsi.data.formats.files import Columns
from fedsi.data.formats.opening import open_corpus
from fedsi.data.label_file import LABEL
from fedsi.data.labelling import check_k, labelled, labelling_json
from fedsi.data.population import FORMAT, Population, read_meta
from fedsi.data.public_words import PUBLIC_WORDS
from fedsi.data.vocabulary import LabelledVocabulary, load_vocabulary
from fedsi.data.words import WORD_RULE
from fedsi.errors import UserError
from fedsi.experiment import DataSettings, Experiment, TaskSettings
from fedsi.experiment.data import PUBLIC
from fedsi.files import cannot_write, sha256_of_file
from fedsi.tasks.table import DATA_KEYS, TASKS, generation_of

_SYNTHETIC_ONLY = {"population", "topic_concentration", "median_examples", "examples_sigma"}
_SYNTHETIC = _SYNTHETIC_ONLY | {
    "heldout_fraction",
    "population_seed",
    "sequence_length",
    "vocabulary_size",
}
"""The settings that a synthetic population depends on; the first four affect no other one."""


def _generation(task: str) -> generated.Generation:
    generation = generation_of(task)
    assert generation, "the population says that the task generates it"  # noqa: S101
    return generation


_OPENERS: dict[str, Callable[[Path], Population]] = {
    token_store.KIND: token_store.StoredPopulation,
    synthetic.KIND: synthetic.open_synthetic,
    generated.KIND: lambda folder: generated.open_generated(folder, _generation),
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


def prepare_for(
    experiment: Experiment,
    cache: Path = DEFAULT_CACHE,
    progress: Progress = silent,
    corpus: Corpus | None = None,
) -> Path:
    """Return the folder of an experiment's population: of its task's own, or of its corpus.

    Args and errors are those of ``prepare``.
    """
    task, data = experiment.task, experiment.data
    generation = generation_of(task.name)
    if generation is None:
        return prepare(data, cache, progress, corpus, task if TASKS[task.name].bound else None)
    if corpus is not None:
        raise UserError(
            f"the corpus {corpus.name} has no effect with task.name={task.name}, which makes its "
            "own examples; leave it out"
        )
    content = [generated.KIND, generated.recipe_json(task)]
    key = _key(data, set(DATA_KEYS) - {"max_examples_per_client"}, content)
    folder = cache_folder(cache) / "populations" / key
    if not folder.exists():
        token_store.write_folder(
            folder, lambda into: generated.write_generated(into, generation, data, task)
        )
    return folder


def prepare(
    data: DataSettings,
    cache: Path = DEFAULT_CACHE,
    progress: Progress = silent,
    corpus: Corpus | None = None,
    task: TaskSettings | None = None,
) -> Path:
    """Return the population folder for these settings, building it if it is not in the cache.

    Args:
        data: The corpus and how it becomes sequences.
        cache: Folder for extracted corpora and built populations.
        progress: Called to report progress.
        corpus: A corpus in memory, instead of the one that ``data.corpus`` names.
        task: A task whose examples have labels; None for one without.

    Raises:
        UserError: The corpus is missing or cannot be used, has no labels for the task, or there is
            no home folder for the default cache.
    """
    cache = cache_folder(cache)
    stated = [] if task is None else [labelling_json(task)]
    if corpus is None and data.corpus == synthetic.KIND:
        _refuse_labels(task)
        return _prepare_synthetic(data, cache)
    corpus = corpus or _find_corpus(data, cache, progress, named=task is not None)
    if corpus is None:
        _refuse_labels(task)
        warnings.warn(
            "the sources of the installed packages are missing, so the pydocs corpus cannot be "
            "made here; using the synthetic corpus instead",
            stacklevel=2,
        )
        return _prepare_synthetic(data, cache)
    names = set(DataSettings.model_fields) - _SYNTHETIC_ONLY - {"corpus", "max_examples_per_client"}
    listed = PUBLIC_WORDS if data.vocabulary == PUBLIC else Path(data.vocabulary)
    try:
        words = sha256_of_file(listed) if listed.is_file() else data.vocabulary
    except OSError as error:
        raise UserError(f"cannot read the vocabulary {listed}: {error.strerror}") from None
    content = [corpus.name, corpus.sha256, words, WORD_RULE, *stated]
    folder = cache / "populations" / _key(data, names, content)
    if task is None:
        if not folder.exists():
            build_store(corpus, folder, data, progress)
    elif not folder.exists():
        found = labelled(corpus, data, task)
        build_store(found.corpus, folder, found.data, progress, found.labels)
    elif isinstance(vocabulary := load_vocabulary(folder), LabelledVocabulary):
        check_k(task, len(vocabulary.labels))
    return folder


def _refuse_labels(task: TaskSettings | None) -> None:
    """Refuse a task that needs labels on the synthetic corpus."""
    if task is not None:
        raise UserError(
            f"task.name={task.name} needs labels, and the synthetic corpus has none; set "
            "data.corpus=pydocs, or name a file with labels"
        )


def _find_corpus(
    data: DataSettings, cache: Path, progress: Progress, *, named: bool
) -> Corpus | None:
    """Open the corpus that the settings name; None if it is pydocs and cannot be made here.

    Args:
        data: The settings.
        cache: Folder for extracted corpora.
        progress: Called to report progress.
        named: Whether pydocs has the names that docstrings document.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(cache, error) from None
    columns = Columns(data.user_column, data.text_column, data.label_column, data.delimiter)
    if data.corpus != pydocs.NAME:
        return open_corpus(
            Path(data.corpus),
            data.format,
            columns,
            skip_bad=data.bad_rows == "skip",
            cache=cache,
            progress=progress,
        )
    name, extract = (
        (pydocs_names.NAME, pydocs_names.extract_names) if named else (pydocs.NAME, pydocs.extract)
    )
    path = cache / "corpora" / f"{name.replace(' ', '-')}-{pydocs.cache_key()}.jsonl"
    if not path.exists() and extract(path, progress) < pydocs.FEWEST_CLIENTS:
        return None
    columns = Columns(label=LABEL if named else None)
    return replace(open_corpus(path, columns=columns), name=name)


def _prepare_synthetic(data: DataSettings, cache: Path) -> Path:
    if data.population < 2:
        raise UserError(
            "data.population = 1 is not allowed: one client to train on and one to "
            "hold out are needed, so at least 2"
        )
    if data.sequence_length > synthetic.LONGEST_SENTENCE:
        raise UserError(
            f"data.sequence_length = {data.sequence_length} is not allowed with the synthetic "
            f"corpus, whose sentences have {1 / synthetic.STOP:g} words on average; at most "
            f"{synthetic.LONGEST_SENTENCE}"
        )
    folder = cache / "populations" / _key(data, _SYNTHETIC, [synthetic.KIND])
    if not folder.exists():
        population = synthetic.make_synthetic(data)
        token_store.write_folder(folder, lambda into: synthetic.write_synthetic(into, population))
    return folder


def _key(data: DataSettings, names: set[str], content: list[str]) -> str:
    """Return a folder name determined by some settings, the content and the format."""
    protocol = [FORMAT, content, data.model_dump(include=names)]
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:24]
