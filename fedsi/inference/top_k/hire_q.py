"""HiRE with quantised rows (Samaga B L et al., arXiv 2402.09360).

8-bit rows choose k' candidates, and exact scores choose among them.
"""

from fedsi.inference.top_k.exact import Exact
from fedsi.inference.top_k.layer import CANDIDATES, Array, Choice, Highest, LayerKind, OutputRows
from fedsi.inference.top_k.quantised import QuantisedRows

USUAL = 16
"""Candidates unless the user gives a number."""


class HireQ:
    """Candidates by 8-bit rows, then exact scores.

    Args:
        rows: The rows.
        candidates: k'.
    """

    def __init__(self, rows: OutputRows, candidates: int) -> None:
        self._first, self._number = rows.first, len(rows)
        self._candidates = candidates
        self._exact = Exact(rows)
        self._rows = QuantisedRows(rows.weight, rows.bias)

    @property
    def bytes_read(self) -> int:
        """Bytes of the 8-bit rows."""
        return self._rows.bytes_read

    def best(self, state: Array, count: int) -> Highest:
        """Return the highest of the candidates."""
        found, _ = self._rows.highest(state, self._candidates, self._first)
        return self._exact.best_of(state, found, count, self._rows.scores[: self._number])


def _build(rows: OutputRows, choice: Choice, states: Array) -> HireQ:
    del states
    return HireQ(rows, choice.candidates or max(USUAL, choice.count))


KIND = LayerKind(_build, "HiRE, 8 bits", frozenset({CANDIDATES}))
