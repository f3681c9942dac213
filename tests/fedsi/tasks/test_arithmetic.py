"""Arithmetic: examples against Python's integers, targets, and what is counted."""

from typing import Any

import numpy as np
import pytest
import torch

from fedsi import Experiment, UserError
from fedsi.data.generated import Generation
from fedsi.data.protocol import FIRST_WORD, PAD, SPECIAL_TOKENS, Tokens
from fedsi.tasks.arithmetic import form
from fedsi.tasks.running_sums import padded_digits
from fedsi.tasks.table import check_task, task_of
from fedsi.tasks.task import Task
from simulations.presets import load_preset


def task(**keys: Any) -> tuple[Task, Generation, Experiment]:
    experiment = Experiment(task={"name": "arithmetic", **keys})
    found = task_of(experiment)
    assert found.generation
    return found, found.generation, experiment


NAMES = ("", "^", "$", "?", *"0123456789+=>")
PRODUCTS = ("", "^", "$", "?", *"0123456789*=")


def text_of(row: Tokens, names: tuple[str, ...] = NAMES) -> str:
    """Return a row as text: ^ for bos, $ for eos, nothing for padding."""
    return "".join(names[k] for k in row)


def rows_of(*texts: str, names: tuple[str, ...] = NAMES) -> Tokens:
    """Return rows of the protocol; ``text_of`` is the inverse."""
    rows = np.full((len(texts), max(map(len, texts))), PAD, np.int32)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = [names.index(letter) for letter in text]
    return rows


def drawn(size: tuple[int, ...], **keys: object) -> list[str]:
    """Return 50 examples of a size as texts, without bos and eos."""
    _, generation, experiment = task(**keys)
    rows = generation.draw(experiment.task, size, 50, np.random.default_rng(0))
    assert rows.shape == (50, generation.width(experiment.task, size))
    names = ("", "^", "$", "?", *generation.symbols(experiment.task))
    texts = [text_of(row, names) for row in rows]
    assert all(text[0] == "^" and text[-1] == "$" for text in texts)
    return [text[1:-1] for text in texts]


@pytest.mark.parametrize("digits", [1, 2, 7, 40])
def test_sums_and_products_are_pythons(digits: int) -> None:
    for text in drawn((digits,)):
        left, right = text.split("=")
        first, second = left.split("+")
        assert (len(first), len(second), len(right)) == (digits, digits, digits + 1)
        assert int(right[::-1]) == int(first) + int(second)
    for text in drawn((digits,), operation="multiplication"):
        left, right = text.split("=")
        first, second = left.split("*")
        assert (len(first), len(second), len(right)) == (digits, 2, digits + 2)
        assert int(right[::-1]) == int(first) * int(second)


@pytest.mark.parametrize("size", [(1, 2), (4, 4), (2, 11), (30, 20)])
def test_running_sums_are_pythons(size: tuple[int, int]) -> None:
    digits, operands = size
    longest = padded_digits(size)
    if operands <= 10**digits:
        assert longest == len(str(operands * (10**digits - 1)))
    for text in drawn(size, operands=4):
        left, right = text.split("=")
        numbers, sums = left.split("+"), right.split(">")
        assert len(numbers) == operands
        assert {len(number) for number in (*numbers, *sums)} == {longest}
        totals = [sum(map(int, numbers[:k])) for k in range(operands + 1)]
        assert [int(one[::-1]) for one in sums] == totals
    for text in drawn(size, operands=4, scratchpad=False):
        left, right = text.split("=")
        assert int(right[::-1]) == sum(map(int, left.split("+")))
        assert len(right) == longest


def test_the_answer_and_its_end_are_asked() -> None:
    found, *_ = task()
    batch = found.batch(rows_of("^12+34=640$", "^1+2=30$"))
    assert [text_of(row) for row in batch.inputs] == ["^12+34=640", "^1+2=30$"]
    assert [text_of(row[row != PAD]) for row in batch.targets] == ["640$", "30$"]
    assert batch.count == 7


def test_an_answer_is_exact_only_if_all_of_it_is_right() -> None:
    found, *_ = task()
    batch = found.batch(rows_of("^12+34=640$", "^1+2=30$"))
    targets = torch.from_numpy(batch.targets[batch.asked]).long()
    size = FIRST_WORD + len(form(Experiment().task).symbols)
    for wrong, exact, hits, stop_hits in (([], 2, 7, 2), ([0], 1, 6, 2), ([3, 4], 0, 5, 1)):
        said = targets.clone()
        said[wrong] = len(SPECIAL_TOKENS) + 9
        outputs = 9.0 * torch.nn.functional.one_hot(said, size).float()
        counted = found.counts(outputs, batch, torch.zeros(size))
        named = dict(zip(found.columns, counted, strict=True))
        assert (named["exact"], named["hits"], named["stop_hits"]) == (exact, hits, stop_hits)
        assert (named["examples"], named["tokens"], named["stops"]) == (2, 7, 2)
    metrics = found.metrics(counted[None])
    assert metrics["exact_match"] == 0
    assert metrics["token_accuracy"] == 5 / 7
    assert metrics["stop_accuracy"] == 1 / 2


def test_coupled_ids_are_those_of_the_paper() -> None:
    """653 + 049 = 0702 reversed, as in figure 1 of arXiv 2405.20671 with n + 2 as the largest."""
    found, *_ = task()
    batch = found.batch(rows_of("^653+049=2070$", "^1+2=30$"))
    assert found.streams == 1
    assert batch.positions is not None
    assert batch.positions.tolist() == [
        [
            [-1, 2, 3, 4, 5, 2, 3, 4, 5, 4, 3, 2, 1],
            [-1, 2, 3, 2, 3, 2, 1, -1, -1, -1, -1, -1, -1],
        ]
    ]
    ordinary, *_ = task(ids="ordinary")
    assert ordinary.batch(rows_of("^1+2=30$")).positions is None
    assert ordinary.streams == 0


def test_ids_of_products_are_those_of_the_paper() -> None:
    """653 * 49 = 31997 reversed; N x 2 multiplication in arXiv 2405.20671."""
    found, *_ = task(operation="multiplication")
    batch = found.batch(rows_of("^653*49=79913$", "^7*12=480$", names=PRODUCTS))
    assert batch.positions is not None
    assert batch.positions.tolist() == [
        [
            [-1, 3, 4, 5, 6, 4, 5, 6, 5, 4, 3, 2, 1],
            [-1, 3, 4, 2, 3, 4, 3, 2, 1, -1, -1, -1, -1],
        ]
    ]


def test_ids_of_running_sums_are_those_of_the_paper() -> None:
    """57 + 48 + 96, in two streams as in arXiv 2410.15787: significance, and index."""
    found, *_ = task(operands=3)
    batch = found.batch(rows_of("^057+048+096=000>750>501>102$", "^05+09=00>50>41$"))
    assert found.streams == 2
    assert batch.positions is not None
    ends = [-1] * 12
    assert batch.positions.tolist() == [
        [
            [-1, *[4, 3, 2, 1] * 2, 4, 3, 2, *[1, 2, 3, 4] * 4],
            [-1, 3, 2, 1, 3, 2, *[1, 2, 3] * 3, -1, *ends],
        ],
        [
            [-1, *[1] * 4, *[2] * 4, *[3] * 3, *[1] * 4, *[2] * 4, *[3] * 4, *[4] * 4],
            [-1, 1, 1, 1, 2, 2, *[1] * 3, *[2] * 3, *[3] * 3, -1, *ends],
        ],
    ]
    alone, *_ = task(operands=3, scratchpad=False)
    batch = alone.batch(rows_of("^057+048+096=102$"))
    assert batch.positions is not None
    assert batch.positions.tolist() == [[[-1, 4, 3, 2, 1, 4, 3, 2, 1, 4, 3, 2, 1, 2, 3, 4]]]


def test_a_mark_decides_whether_another_sum_follows() -> None:
    found, *_ = task(operands=3)
    batch = found.batch(rows_of("^05+09=00>50>41$"))
    targets = torch.from_numpy(batch.targets[batch.asked]).long()
    assert text_of(targets.numpy()) == "00>50>41$"
    outputs = 9.0 * torch.nn.functional.one_hot(targets, 17).float()
    outputs[2] = 0.0
    counted = dict(zip(found.columns, found.counts(outputs, batch, torch.zeros(17)), strict=True))
    assert (counted["stops"], counted["stop_hits"], counted["hits"]) == (3, 2, 8)


def test_ids_of_half_a_question_are_refused() -> None:
    for keys in ({}, {"operands": 3}):
        found, *_ = task(**keys)
        for text in ("^12+3$", "^12=4$", "^=12+3$"):
            with pytest.raises(UserError, match="depend on the whole question, which ends with =;"):
                found.batch(rows_of(text))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"operands": 3, "operation": "multiplication"}, "no effect with task.operation=multipl"),
        ({"scratchpad": False}, "task.scratchpad=false has no effect with two operands"),
        ({"operands": 1}, "task.operands = 1 is not allowed"),
        ({"name": "copy", "operands": 3}, "task.operands=3 has no effect with task.name=copy"),
    ],
)
def test_settings_of_other_forms_are_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        task(**keys)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"client.precision": "bfloat16"}, "needs gradients by hand, but autograd trains"),
        ({"client.step": "vectorised"}, "client.step=vectorised takes no position ids"),
        (
            {
                "client.example_noise_multiplier": 1.0,
                "client.gradient_clip": None,
                "server.averaging": "uniform",
            },
            "client.example_noise_multiplier takes no position ids",
        ),
    ],
)
def test_training_that_takes_no_ids_is_refused(more: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_task(load_preset("addition").updated(more), 16)


def test_a_learned_table_need_not_hold_the_sentences_of_a_corpus() -> None:
    model = {"architecture": "transformer", "positions": "learned", "max_length": 8}
    assert Experiment(task={"name": "arithmetic", "longest": 5}, model=model).model.max_length == 8
    with pytest.raises(UserError, match=r"too few for sequences of data.sequence_length \(20\)"):
        Experiment(model=model)
