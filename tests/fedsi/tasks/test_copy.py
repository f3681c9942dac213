"""Copying, reversing and recall: examples as text, targets, and lengths that are refused."""

import numpy as np
import pytest

from fedsi import Experiment, UserError
from fedsi.data.generated import Generation
from fedsi.data.protocol import PAD, Tokens
from fedsi.tasks import copy, recall
from fedsi.tasks.table import task_of
from fedsi.tasks.task import Task


def rows_of(name: str, length: int, count: int = 30) -> tuple[Task, Tokens, list[str]]:
    """Return a task, examples of it, and their texts with ^ for bos and $ for eos."""
    experiment = Experiment(task={"name": name})
    task = task_of(experiment)
    generation = task.generation
    assert isinstance(generation, Generation)
    rows = generation.draw(experiment.task, (length,), count, np.random.default_rng(0))
    assert rows.shape == (count, generation.width(experiment.task, (length,)))
    symbols = ["", "^", "$", "?", *generation.symbols(experiment.task)]
    return task, rows, ["".join(symbols[k] for k in row) for row in rows]


@pytest.mark.parametrize("name", ["copy", "reverse"])
@pytest.mark.parametrize("length", [1, 7])
def test_the_answer_is_the_sequence(name: str, length: int) -> None:
    task, rows, texts = rows_of(name, length)
    for text in texts:
        said, answer = text.strip("^$").split("|")
        assert len(said) == length
        assert answer == (said if name == "copy" else said[::-1])
    batch = task.batch(np.pad(rows, ((0, 0), (0, 2))))
    assert batch.count == len(rows) * (length + 1)
    assert (batch.inputs[batch.asked.argmax(1).nonzero()[0]] == copy.MARK).any(1).all()
    assert np.array_equal(batch.targets[0][batch.asked[0]], rows[0, length + 2 :])


@pytest.mark.parametrize("pairs", [1, 8, 26])
def test_every_key_is_asked_for_once(pairs: int) -> None:
    task, rows, texts = rows_of("recall", pairs)
    batch = task.batch(rows)
    for row, text in enumerate(texts):
        stored, asked = text.strip("^$").split("|")
        known = {stored[k]: stored[k + 1] for k in range(0, 2 * pairs, 2)}
        assert len(known) == pairs
        assert len(stored) + 1 + len(asked) == 8 * pairs
        queries = {asked[k]: asked[k + 1] for k in range(len(asked)) if asked[k].isupper()}
        assert queries == known
        assert asked.count(".") == 4 * pairs - 1
        wanted = batch.inputs[row][batch.asked[row]]
        assert ((wanted >= 4) & (wanted < recall.FIRST_VALUE)).all()
    assert batch.count == len(rows) * pairs
    assert set(batch.targets[batch.targets != PAD].tolist()) <= set(
        range(recall.FIRST_VALUE, recall.MARK)
    )


def test_queries_are_at_all_places() -> None:
    task, rows, _ = rows_of("recall", 2, 2000)
    first = task.batch(rows).asked.argmax(1)
    shares = np.bincount(first, minlength=17)[6:14] / len(rows)
    # With 9 slots, of which 2 are drawn, the first is slot k with probability (8 - k) / 36.
    assert np.abs(shares - (8 - np.arange(8)) / 36).max() < 0.03


def test_impossible_lengths_are_refused() -> None:
    for name, text in (("copy", "0"), ("reverse", "-3"), ("recall", "27"), ("recall", "x")):
        experiment = Experiment(task={"name": name})
        generation = task_of(experiment).generation
        assert generation
        with pytest.raises(ValueError, match=f"'{text}' is no length of {name}; give a number"):
            generation.parse(experiment.task, text)
    experiment = Experiment(task={"name": "recall", "longest": 27})
    generation = task_of(experiment).generation
    assert generation
    with pytest.raises(UserError, match=r"task.longest = 27 pairs .* recall has 26; lower it"):
        generation.sizes(experiment.task)
