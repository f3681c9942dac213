"""Equations with two operands, ``a+b=`` or ``a*b=``, and their reversed result.

Addition: both numbers have n digits, zeros in front included, and the sum has n + 1.
Multiplication: the first number has n digits and the second two, and the product has n + 2. A
length is n.

Coupled ids: with r digits in the result, the digits of an operand rise to r at the least
significant one, ``+``, ``*`` and ``=`` have r + 1, and the digits of the result fall from r to 1.
``bos`` and ``eos`` have none.

Source: Cho et al., position coupling (arXiv 2405.20671), sections 3 and 6; its models for N x 2
multiplication have two layers or more.
"""

from collections.abc import Callable

import numpy as np

from fedsi.data.generated import Size
from fedsi.data.protocol import BOS, EOS, FIRST_WORD, Tokens
from fedsi.tasks import answers
from fedsi.tasks.arithmetic_text import (
    DIGITS,
    EQUALS,
    OPERATOR,
    Digits,
    Form,
    carried,
    check_questions,
)
from fedsi.tasks.task import Ids

FACTOR_DIGITS = 2
"""Digits of the second number of a multiplication."""


def _written(first: Digits, second: Digits, result: Digits) -> Tokens:
    """Return equations as rows.

    Args:
        first: The first numbers, the least significant digit first, ``[count, digits]``.
        second: The second numbers.
        result: The results.
    """
    one = np.ones((len(first), 1), np.int64)
    parts = [
        BOS * one,
        FIRST_WORD + first[:, ::-1],
        OPERATOR * one,
        FIRST_WORD + second[:, ::-1],
        EQUALS * one,
        FIRST_WORD + result,
        EOS * one,
    ]
    return np.concatenate(parts, axis=1).astype(np.int32)


def _draw_sums(size: Size, count: int, rng: np.random.Generator) -> Tokens:
    first, second = rng.integers(0, 10, (2, count, *size))[..., ::-1]
    return _written(first, second, carried(np.pad(first + second, ((0, 0), (0, 1)))))


def _draw_products(size: Size, count: int, rng: np.random.Generator) -> Tokens:
    first, second = (rng.integers(0, 10, (count, n)) for n in (*size, FACTOR_DIGITS))
    total = sum(
        np.pad(first * second[:, place, None], ((0, 0), (place, FACTOR_DIGITS - place)))
        for place in range(FACTOR_DIGITS)
    )
    return _written(first, second, carried(np.asarray(total)))


def _ids(rows: Tokens, result_digits: Callable[[Digits, Digits], Digits]) -> Ids:
    """Return the ids of equations.

    Args:
        rows: ``[batch, tokens]``.
        result_digits: Number of digits of a result, from those of its two operands.
    """
    check_questions(rows)
    places = np.arange(rows.shape[1])
    operator, equals = (np.argmax(rows == mark, axis=1)[:, None] for mark in (OPERATOR, EQUALS))
    last = result_digits(operator - 1, equals - operator - 1)
    ids = np.select(
        [
            (places == 0) | (places > equals + last),
            (places == operator) | (places == equals),
            places < operator,
            places < equals,
        ],
        [
            np.full(rows.shape, -1),
            last + 1 + 0 * places,
            last + 1 - (operator - places),
            last + 1 - (equals - places),
        ],
        last + 1 - (places - equals),
    )
    return np.asarray(ids[None], np.int64)


def addition_ids(rows: Tokens) -> Ids:
    """Return the coupled ids of additions ``[batch, tokens]``, ``[1, batch, tokens]``."""
    return _ids(rows, lambda first, second: np.maximum(first, second) + 1)


def multiplication_ids(rows: Tokens) -> Ids:
    """Return the coupled ids of multiplications, as ``addition_ids``."""
    return _ids(rows, lambda first, second: first + second)


ADDITION = Form(
    symbols=f"{DIGITS}+=",
    what="digits of an operand",
    sizes=answers.sizes_between,
    parse=lambda text: answers.parsed_length(text, "arithmetic", "digits"),
    width=lambda size: 3 * size[0] + 5,
    draw=_draw_sums,
    ids=addition_ids,
)
MULTIPLICATION = Form(
    symbols=f"{DIGITS}*=",
    what="digits of the first number",
    sizes=answers.sizes_between,
    parse=lambda text: answers.parsed_length(text, "arithmetic", "digits"),
    width=lambda size: 2 * size[0] + 2 * FACTOR_DIGITS + 4,
    draw=_draw_products,
    ids=multiplication_ids,
)
