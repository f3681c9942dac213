"""Tasks of users: refused in one sentence that names the function, the file and the line."""

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsi import Experiment, UserError
from fedsi.data.protocol import Tokens
from fedsi.experiment import TaskSettings
from fedsi.tasks.next_word import TASK as NEXT_WORD
from fedsi.tasks.table import TASKS, check_task, task_of
from fedsi.tasks.task import Batch, Counts, Task, cross_entropy
from fedsi.tasks.user_task import checked_task, try_task
from fedsi.trust import check_trusted

PATH = "my_task:TASK"
SETTINGS = TaskSettings()
calls: list[int] = []


def raises(rows: Tokens) -> Batch:
    raise KeyError("never mind")


def wrong_shape(rows: Tokens) -> Batch:
    return Batch(rows, rows[:, 1:])


def wrong_type(rows: Tokens) -> Batch:
    return Batch(rows.astype(np.int64), rows.astype(np.int64))


def other_kind(rows: Tokens) -> Batch:
    return rows, rows  # type: ignore[return-value]


def nothing(rows: Tokens) -> Batch:
    return Batch(rows, np.zeros_like(rows))


def beyond(rows: Tokens) -> Batch:
    return Batch(rows, np.where(rows > 0, 99, 0).astype(np.int32))


def with_ids(rows: Tokens) -> Batch:
    return Batch(rows, rows, np.zeros((1, *rows.shape), np.int64))


def with_low_ids(rows: Tokens) -> Batch:
    return Batch(rows, rows, np.full((1, *rows.shape), -2))


def copied(change: Callable[[Tokens], Tokens]) -> Task:
    """Return the task of copying with changed examples."""
    own = TASKS["copy"]
    assert own.generation
    draw = own.generation.draw
    changed = replace(own.generation, draw=lambda *given: change(draw(*given)))
    return replace(own, generation=changed)


def of_numpy(rows: Tokens) -> Batch:
    np.random.rand()  # noqa: NPY002 - a fault
    return NEXT_WORD.batch(rows)


def of_random(rows: Tokens) -> Batch:
    random.random()
    return NEXT_WORD.batch(rows)


def of_its_own(rows: Tokens) -> Batch:
    drawn = np.random.default_rng().integers(1, 5, rows.shape, np.int32)
    return Batch(rows, np.where(rows > 0, drawn, 0).astype(np.int32))


def remembers(outputs: Tensor, asked: Batch, unigram: Tensor) -> Counts:
    calls.append(1)
    return NEXT_WORD.counts(outputs, asked, unigram) * [1, 1, len(calls), *[1] * 8]


def too_few(outputs: Tensor, asked: Batch, unigram: Tensor) -> Counts:
    return NEXT_WORD.counts(outputs, asked, unigram)[:-1]


def miscounts(outputs: Tensor, asked: Batch, unigram: Tensor) -> Counts:
    return NEXT_WORD.counts(outputs, asked, unigram) + 1


def unnamed(rows: Counts) -> dict[str, float]:
    return {"loss": 1.0}


def a_mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets).mean()


def detached(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets).detach()


FAULTS: list[tuple[str, Callable[..., Any], str]] = [
    ("batch", raises, r"^batch of my_task:TASK failed: KeyError: 'never mind' \(@\)$"),
    ("batch", wrong_shape, r"\(@\) returned inputs int32 \[3, 8\] and targets int32 \[3, 7\]"),
    ("batch", wrong_type, r"\(@\) returned inputs int64 .*; return two int32 arrays of one shape"),
    ("batch", other_kind, r"\(@\) returned a tuple; return a Batch"),
    ("batch", nothing, "has no targets; give some positions a target"),
    ("batch", beyond, "has the target 99, but a model has outputs for the 11 ids"),
    ("batch", of_numpy, r"\(@\) draws from the global generator of numpy.random"),
    ("batch", of_random, r"\(@\) draws from the global generator of random"),
    ("batch", of_its_own, "returns something else when called again"),
    ("counts", remembers, "counts of my_task:TASK returns something else when called again"),
    ("counts", too_few, r"\(@\) returned float64 \[10\]; return a float64 array with one number"),
    ("counts", miscounts, r"\(@\) counted 4 examples and .* tokens, but the batch has 3 rows and"),
    ("metrics", unnamed, r"\(@\) returned \['loss'\]; return a dict of numbers with the names"),
    (
        "losses",
        a_mean,
        r"\(@\) returned torch.float32 \[\] for \d+ targets; return a tensor",
    ),
    ("losses", detached, "losses of my_task:TASK cannot be differentiated: RuntimeError"),
]


@pytest.mark.parametrize(("name", "function", "sentence"), FAULTS)
def test_faults_are_one_sentence_with_file_and_line(
    name: str, function: Callable[..., Any], sentence: str
) -> None:
    own: Task = replace(NEXT_WORD, **{name: function})  # type: ignore[arg-type]
    with pytest.raises(UserError) as error:
        try_task(PATH, checked_task(PATH, own), 11, SETTINGS)
    line = function.__code__.co_firstlineno + (function is raises)
    place = f"{__file__}, line {line}".replace(".", r"\.")
    assert re.search(sentence.replace("@", place), str(error.value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("function", "streams", "sentence"),
    [
        (with_ids, 0, r"positions int64 \[1, 3, 8\], and the task has 0 streams of ids"),
        (with_ids, 2, r"positions int64 \[1, 3, 8\], and the task has 2 streams of ids"),
        (NEXT_WORD.batch, 1, r"positions None, and the task has 1 streams .* and inputs \[3, 7\]"),
        (with_low_ids, 1, "returned the position id -2; ids count from 0, and -1 is that of"),
    ],
)
def test_position_ids_that_do_not_fit_are_one_sentence(
    function: Callable[[Tokens], Batch], streams: int, sentence: str
) -> None:
    own = replace(NEXT_WORD, batch=function, streams=streams)
    with pytest.raises(UserError, match=sentence):
        try_task(PATH, checked_task(PATH, own), 11, SETTINGS)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: rows[:, 1:], r"returned int32 \[3, 22\] for 3 examples of 23 tokens each"),
        (lambda rows: rows.astype(np.int64), r"returned int64 \[3, 23\] for 3 examples"),
        (lambda rows: rows[:, ::-1], r"rows that do not begin with bos \(1\) and end with eos"),
        (
            lambda rows: np.where(rows == 5, 90, rows),
            "other ids than those of its symbols, 4 to 20",
        ),
        (lambda rows: rows.nothing, r"generation.draw of my_task:TASK failed: AttributeError"),
    ],
)
def test_examples_that_cannot_be_used_are_one_sentence(
    change: Callable[[Tokens], Tokens], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        try_task(PATH, checked_task(PATH, copied(change)), 21, SETTINGS)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"columns": ("tokens", "examples", "loss")}, "columns must begin with examples, tokens,"),
        ({"names": ("accuracy", "loss")}, "the first of names must be loss"),
        ({"score": "bleu"}, "score bleu must be one of names"),
        ({"deciding": "bleu"}, "deciding bleu must be loss, or the score if it has a curve"),
        ({"curves": {"bleu": "BLEU"}}, "curves must be names of metrics"),
        ({"at_most": {"bleu": ("tokens",)}}, "at_most must have names of columns"),
    ],
)
def test_names_that_contradict_each_other_are_refused(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=f"^the task my_task:TASK contradicts itself: {sentence}"):
        checked_task(PATH, replace(NEXT_WORD, **changes))


def test_a_good_one_is_as_it_was() -> None:
    task = checked_task(PATH, NEXT_WORD)
    try_task(PATH, task, 11, SETTINGS)
    rows = np.array([[1, 5, 6, 2], [1, 7, 2, 0]], np.int32)
    assert task.losses is cross_entropy
    batch = task.batch(rows)
    np.testing.assert_array_equal(batch.targets, NEXT_WORD.batch(rows).targets)
    outputs = torch.zeros(batch.count, 11)
    unigram = torch.zeros(11, dtype=torch.float64)
    counted = task.counts(outputs, batch, unigram)
    np.testing.assert_array_equal(counted, NEXT_WORD.counts(outputs, batch, unigram))


def test_what_is_no_task_or_comes_from_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "a_strange_task.py").write_text("TASK = 3\n")
    monkeypatch.syspath_prepend(strange)
    experiment = Experiment(task={"name": "a_strange_task:TASK"})
    with pytest.raises(UserError, match=r"^run asks for task\.name = 'a_strange_task:TASK', whose"):
        check_trusted(experiment.import_paths, Path("run"))
    with pytest.raises(UserError, match=r"_task:TASK is an int, and task\.name takes a Task"):
        task_of(experiment)
    with pytest.raises(UserError, match=r"is an int, and task\.name takes a Task"):
        check_task(experiment, 11)


def test_the_programs_own_are_not_wrapped() -> None:
    assert task_of(Experiment()) is TASKS["next_word"] is NEXT_WORD
