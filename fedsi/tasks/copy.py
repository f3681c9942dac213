"""The tasks of copying a sequence of symbols, and of reversing it.

``s1 ... sn|`` is followed by the same symbols, or by ``sn ... s1``. Symbols are drawn independently
and with equal probabilities from 16 letters. A length is n, the number of symbols.

Source: Jelassi et al., "Repeat After Me" (arXiv 2402.01032), for copying; Trockman et al. (arXiv
2410.11135) train Mamba on it.
"""

import numpy as np

from fedsi.data.generated import Generation, Size
from fedsi.data.protocol import BOS, EOS, FIRST_WORD, Tokens
from fedsi.experiment import TaskSettings
from fedsi.tasks import answers
from fedsi.tasks.task import Batch

LETTERS = "abcdefghijklmnop"
MARK = FIRST_WORD + len(LETTERS)


def _symbols(_settings: TaskSettings) -> str:
    return f"{LETTERS}|"


def _parse(settings: TaskSettings, text: str) -> Size:
    return answers.parsed_length(text, settings.name, "symbols")


def _width(_settings: TaskSettings, size: Size) -> int:
    return 2 * size[0] + 3


def _draw(settings: TaskSettings, size: Size, count: int, rng: np.random.Generator) -> Tokens:
    symbols = rng.integers(FIRST_WORD, MARK, (count, *size))
    answer = symbols[:, ::-1] if settings.name == "reverse" else symbols
    one = np.ones((count, 1), np.int64)
    parts = [BOS * one, symbols, MARK * one, answer, EOS * one]
    return np.concatenate(parts, axis=1).astype(np.int32)


def batch(rows: Tokens) -> Batch:
    """Return the batch of rows ``[batch, tokens]``: the answer and the end are targets."""
    return answers.answers_after(rows, MARK)


TASK = answers.asking_task(
    batch,
    "token_accuracy",
    Generation(
        symbols=_symbols,
        sizes=answers.sizes_between,
        parse=_parse,
        width=_width,
        draw=_draw,
        what="symbols",
    ),
)
"""Both tasks; the name decides the order of the answer."""
