"""Choice of the labels of a corpus, and the corpus of the rows that have some of them.

Labels are stated in the corpus (``task.label_source``): in its label column, for pydocs as the
names that a docstring documents, or as the emoji of a text. Without a file of labels the most
frequent ones of the training clients are used, and a label's name is its text. With
``task.label_file`` the labels are those of the file.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedsi.data import pydocs_names
from fedsi.data.corpus import Corpus, Row
from fedsi.data.ingest import Entries, chosen_rows, group_of, held_out
from fedsi.data.label_file import read_labels
from fedsi.data.label_sources import SOURCES
from fedsi.data.labels import LabelSet, answer_key
from fedsi.data.left_out_rows import NO_LABEL
from fedsi.data.words import split_words
from fedsi.errors import UserError
from fedsi.experiment import DataSettings, TaskSettings
from fedsi.experiment.data import BYTE_PAIRS
from fedsi.files import sha256_of_file

TRAINING, HELD_OUT = "training", "held out"
"""Splits of the rows with labels."""


@dataclass(frozen=True)
class Labelled:
    """A corpus of queries, and their labels."""

    corpus: Corpus
    """The rows with right labels; ``Row.label`` is an ``answer_key``."""
    labels: LabelSet
    data: DataSettings
    """The settings, with the splits of the rows."""


def labelled(corpus: Corpus, data: DataSettings, task: TaskSettings) -> Labelled:
    """Choose the labels of a corpus.

    Clients are held out before labels are chosen, and remain so if some of them have none.

    Raises:
        UserError: There are fewer than two labels, one has no text, the file of labels cannot be
            used, or no client has labels to train on or to hold out.
    """
    named = replace(corpus, rows=lambda: _named(corpus, task))
    entries, clients = _survey(named, data)
    unseen = held_out(entries, data)
    heldout_clients = {name for name, out in zip(entries.names, unseen, strict=True) if out}
    by_row = data.heldout_split is not None or data.heldout_by == "sentences"

    def is_heldout(row: Row, heldout: bool) -> bool:
        return heldout if by_row else row.client in heldout_clients

    labels = _labels(corpus, data, task, clients, unseen)
    number = {name: place for place, name in enumerate(labels.names)}

    def rows() -> Iterator[Row]:
        for row, heldout in chosen_rows(named, data):
            known = [number[name] for name in row.label.split(_BETWEEN) if name in number]
            if known:
                split = HELD_OUT if is_heldout(row, heldout) else TRAINING
                yield row._replace(label=answer_key(known), split=split)
            else:
                corpus.left_out.counts[NO_LABEL] += 1

    there = {row.split for row in rows()}
    if there != {TRAINING, HELD_OUT}:
        raise UserError(
            f"the corpus {corpus.name} has no client with labels to "
            f"{'hold out' if TRAINING in there else 'train on'}; choose others with data.heldout_by"
            " and data.heldout_fraction"
        )
    split = data.model_copy(update={"split": TRAINING, "heldout_split": HELD_OUT})
    return Labelled(replace(corpus, rows=rows), labels, split)


_BETWEEN = "\n"
"""Separates the names of labels in ``Row.label``."""


def _named(corpus: Corpus, task: TaskSettings) -> Iterator[Row]:
    """Yield rows with their queries as texts and the names of their labels."""
    source = SOURCES[task.label_source]
    for row in corpus.rows():
        text, names = source(row, task.label_separator)
        yield row._replace(text=text, label=_BETWEEN.join(dict.fromkeys(names)))


def _survey(named: Corpus, data: DataSettings) -> tuple[Entries, dict[str, set[int]]]:
    """Return the clients, and those that have each label."""
    entries, clients = Entries(), defaultdict[str, set[int]](set)
    for row, heldout in chosen_rows(named, data):
        if row.label:
            entry = entries.number(row, group_of(row, data), heldout)
            for name in row.label.split(_BETWEEN):
                clients[name].add(entry)
    return entries, clients


def _labels(
    corpus: Corpus,
    data: DataSettings,
    task: TaskSettings,
    clients: Mapping[str, set[int]],
    heldout: Sequence[bool],
) -> LabelSet:
    """Return the labels of the file or, without one, those that most training clients have."""
    if task.label_file is not None:
        labels = read_labels(Path(task.label_file), task.labels)
    else:
        counts = {
            name: number
            for name, its in clients.items()
            if (number := sum(not heldout[entry] for entry in its))
        }
        names = sorted(counts, key=lambda name: (-counts[name], name))[: task.labels]
        text_of = pydocs_names.words_of_name if corpus.name == pydocs_names.NAME else str
        labels = LabelSet(tuple(names), tuple(map(text_of, names)))
    if len(labels) < 2:
        only = f"one label only, {labels.names[0]!r}," if labels.names else "no labels,"
        source = "name the column of labels with data.label_column"
        if task.label_source == "emoji":
            source = f"its texts have too few emoji for task.label_source=emoji; {source}"
        raise UserError(
            f"the corpus {corpus.name} has {only} and retrieval ranks at least two; {source}"
        )
    check_k(task, len(labels))
    for name, text in zip(labels.names, labels.texts, strict=True):
        if data.vocabulary != BYTE_PAIRS and not split_words(text, data.words):
            raise UserError(
                f"the label {name!r} has no text: there is no word in {text!r} by "
                f"data.words={data.words}; give texts of the labels with task.label_file"
            )
    return labels


def check_k(task: TaskSettings, labels: int) -> None:
    """Refuse a loss that selects as many labels as there are, or more.

    Raises:
        UserError: It does.
    """
    if task.loss == "soft_top_k" and labels <= task.k:
        raise UserError(f"task.k = {task.k} is not less than the {labels} labels; lower it")


def labelling_json(task: TaskSettings) -> str:
    """Return the keys that the labels of a corpus depend on, and the hash of their file, as JSON.

    Raises:
        UserError: The file cannot be used, or has too few labels for the loss.
    """
    keys = {"labels", "label_source", "label_separator"}
    if task.label_file is None:
        return task.model_dump_json(include=keys)
    check_k(task, len(read_labels(Path(task.label_file), task.labels)))
    return task.model_dump_json(include=keys) + sha256_of_file(Path(task.label_file))
