"""The exact layer: the scores of all rows."""

import numpy as np

from fedsi.inference.top_k.layer import Array, Choice, Highest, LayerKind, OutputRows
from fedsi.kernels.cpu.int8_rows import exact_scores, exact_scores_of, highest, highest_of


class Exact:
    """Computes every row's score.

    Args:
        rows: The rows.
    """

    def __init__(self, rows: OutputRows) -> None:
        self._rows = rows
        self._scores = np.empty(len(rows), np.float32)

    @property
    def bytes_read(self) -> int:
        """Bytes of weight and bias."""
        return self._rows.weight.nbytes + self._rows.bias.nbytes

    def best(self, state: Array, count: int) -> Highest:
        """Return the highest rows."""
        exact_scores(self._scores, self._rows.weight, self._rows.bias, state[None])
        ids, kept = empty(count)
        number = highest(ids, kept, self._scores, self._rows.first)
        return Highest(ids[:number], kept[:number], self._scores)

    def best_of(self, state: Array, found: Array, count: int, scores: Array) -> Highest:
        """Return the highest of some rows; their exact scores are the bits of ``best``.

        Args:
            state: The state.
            found: Ids of the rows, int64.
            count: Number of rows to return.
            scores: Cheap scores of all rows; the exact ones are written over them.
        """
        exact = np.empty(len(found), np.float32)
        exact_scores_of(exact, found, self._rows.weight, self._rows.bias, state[None])
        scores[found] = exact
        ids, kept = empty(count)
        number = highest_of(ids, kept, found, exact)
        return Highest(ids[:number], kept[:number], scores, rescored=len(found))


def empty(count: int) -> tuple[Array, Array]:
    """Return space for ids and scores of the highest rows."""
    return np.empty(count, np.int64), np.empty(count, np.float32)


def _build(rows: OutputRows, choice: Choice, states: Array) -> Exact:
    del choice, states
    return Exact(rows)


KIND = LayerKind(_build, "exact")
