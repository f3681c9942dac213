"""The task of arithmetic, whose answer is written from its least significant digit.

Addition: ``a+b=`` is followed by the reversed sum of two numbers with the same number n of digits,
zeros in front included; the sum has n + 1. A length is n, the number of digits of an operand.

Coupled position ids (``task.ids``): digits of the same significance share an id. The ids of an
operand's digits rise to the least significant digit, whose id is n + 1; ``+`` and ``=`` have
n + 2; those of the sum fall from n + 1 to 1. ``bos`` and ``eos`` have none.

Source: Cho et al., position coupling (arXiv 2405.20671), section 3.
"""

from dataclasses import replace

import numpy as np

from fedsi.data.generated import Generation, Size
from fedsi.data.protocol import BOS, EOS, FIRST_WORD, Tokens
from fedsi.experiment import TaskSettings
from fedsi.tasks import answers
from fedsi.tasks.task import Batch, Ids, Task

SYMBOLS = "0123456789+="
PLUS, EQUALS = (FIRST_WORD + SYMBOLS.index(symbol) for symbol in "+=")


def _symbols(_settings: TaskSettings) -> str:
    return SYMBOLS


def _parse(_settings: TaskSettings, text: str) -> Size:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise ValueError(
            f"{text!r} is no length of arithmetic; give a number of digits of 1 or more, such as 20"
        )
    return (int(text),)


def _width(_settings: TaskSettings, size: Size) -> int:
    return 3 * size[0] + 5


def _draw(_settings: TaskSettings, size: Size, count: int, rng: np.random.Generator) -> Tokens:
    (digits,) = size
    first, second = rng.integers(0, 10, (2, count, digits))
    total = add_digits(first[:, ::-1], second[:, ::-1])
    one = np.ones((count, 1), np.int64)
    parts = [
        BOS * one,
        FIRST_WORD + first,
        PLUS * one,
        FIRST_WORD + second,
        EQUALS * one,
        FIRST_WORD + total,
        EOS * one,
    ]
    return np.concatenate(parts, axis=1).astype(np.int32)


def add_digits(
    first: np.ndarray[tuple[int, int], np.dtype[np.int64]],
    second: np.ndarray[tuple[int, int], np.dtype[np.int64]],
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Add numbers in digits, the least significant first: ``[count, n]`` to ``[count, n + 1]``."""
    total = np.pad(first + second, ((0, 0), (0, 1)))
    for place in range(total.shape[1] - 1):
        total[:, place + 1] += total[:, place] // 10
        total[:, place] %= 10
    return total


def addition_ids(rows: Tokens) -> Ids:
    """Return the coupled ids of rows ``[batch, tokens]``, ``[1, batch, tokens]``."""
    places = np.arange(rows.shape[1])
    plus, equals = (np.argmax(rows == mark, axis=1)[:, None] for mark in (PLUS, EQUALS))
    digits = plus - 1
    first, second = places + 1, places - plus + 1
    ids = np.select(
        [
            (places == 0) | (places > equals + digits + 1),
            places < plus,
            (places == plus) | (places == equals),
            places < equals,
        ],
        [np.full_like(rows, -1, np.int64), first + 0 * plus, digits + 2 + 0 * places, second],
        digits + 1 - (places - equals - 1),
    )
    return np.asarray(ids[None], np.int64)


def configured(settings: TaskSettings) -> Task:
    """Return the task for its keys."""
    if settings.ids == "ordinary":
        return TASK

    def coupled(rows: Tokens) -> Batch:
        return replace(batch(rows), positions=addition_ids(rows)[..., :-1])

    return replace(TASK, batch=coupled, streams=1)


def batch(rows: Tokens) -> Batch:
    """Return the batch of rows ``[batch, tokens]``: the sum and the end are targets."""
    return answers.answers_after(rows, EQUALS)


TASK = replace(
    answers.asking_task(
        batch,
        "exact_match",
        Generation(
            symbols=_symbols,
            sizes=answers.sizes_between,
            parse=_parse,
            width=_width,
            draw=_draw,
            what="digits of an operand",
        ),
    ),
    keys=frozenset({"ids"}),
    configured=configured,
)
