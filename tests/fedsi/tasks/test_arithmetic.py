"""Arithmetic: examples against Python's integers, targets, and what is counted."""

from typing import Any

import numpy as np
import pytest
import torch

from fedsi import Experiment, UserError
from fedsi.data.generated import Generation
from fedsi.data.protocol import FIRST_WORD, PAD, SPECIAL_TOKENS, Tokens
from fedsi.tasks.arithmetic import SYMBOLS
from fedsi.tasks.table import check_task, task_of
from fedsi.tasks.task import Task
from simulations.presets import load_preset


def task(**keys: object) -> tuple[Task, Generation, Experiment]:
    experiment = Experiment(task={"name": "arithmetic", **keys})
    found = task_of(experiment)
    assert found.generation
    return found, found.generation, experiment


def text_of(row: Tokens) -> str:
    """Return a row as text: ^ for bos, $ for eos, nothing for padding."""
    return "".join(("", "^", "$", "?", *SYMBOLS)[k] for k in row)


def rows_of(*texts: str) -> Tokens:
    """Return rows of the protocol; ``text_of`` is the inverse."""
    names = ("", "^", "$", "?", *SYMBOLS)
    rows = np.full((len(texts), max(map(len, texts))), PAD, np.int32)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = [names.index(letter) for letter in text]
    return rows


@pytest.mark.parametrize("digits", [1, 2, 7, 40])
def test_sums_are_pythons(digits: int) -> None:
    _, generation, experiment = task()
    rng = np.random.default_rng(0)
    rows = generation.draw(experiment.task, (digits,), 50, rng)
    assert rows.shape == (50, generation.width(experiment.task, (digits,)))
    for text in map(text_of, rows):
        left, right = text.strip("^$").split("=")
        first, second = left.split("+")
        assert len(first) == len(second) == digits
        assert len(right) == digits + 1
        assert int(right[::-1]) == int(first) + int(second)


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
    size = FIRST_WORD + len(SYMBOLS)
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
