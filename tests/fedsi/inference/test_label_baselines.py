"""BM25 against its equation, word by word, and the ranking by frequency."""

import json
import math
from pathlib import Path

import numpy as np

from fedsi.data.prepare import open_population, prepare_for
from fedsi.data.vocabulary import LabelledVocabulary
from fedsi.inference.label_baselines import Bm25, label_counts
from tests.fedsi.tasks.test_retrieval import retrieval_on
from tests.labelled import write_labelled

LABELS = np.array([[1, 7, 8, 0], [1, 9, 0, 0], [1, 7, 7, 10]], np.int32)
QUERIES = np.array([[1, 7, 9, 7], [1, 11, 2, 0], [1, 10, 8, 0]], np.int32)


def slow_score(query: list[int], place: int) -> float:
    """Return the score of a label by the docstring's equation."""
    texts = [[word for word in label if word > 3] for label in LABELS.tolist()]
    mean = sum(map(len, texts)) / len(texts)
    score = 0.0
    for word in query:
        n = sum(word in text for text in texts)
        times = texts[place].count(word)
        weight = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
        score += weight * times * 2.2 / (times + 1.2 * (1 - 0.75 + 0.75 * len(texts[place]) / mean))
    return score


def test_bm25_is_its_equation() -> None:
    found = Bm25(LABELS).scores(QUERIES)
    expected = [[slow_score(query, place) for place in range(3)] for query in QUERIES.tolist()]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_labels_are_counted_over_training_examples(tmp_path: Path) -> None:
    write_labelled(tmp_path / "c.jsonl", 6, 4)
    population = open_population(prepare_for(retrieval_on(tmp_path / "c.jsonl"), tmp_path))
    vocabulary = population.vocabulary()
    assert isinstance(vocabulary, LabelledVocabulary)
    expected = dict.fromkeys(vocabulary.labels.names, 0)
    training = set(population.names()[: population.description.training_clients])
    for line in (tmp_path / "c.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for label in row["label"].split("|") if row["user"] in training else ():
            expected[label] += 1
    assert label_counts(population, len(expected)).tolist() == list(expected.values())
