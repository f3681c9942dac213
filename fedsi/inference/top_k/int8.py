"""The highest rows by 8-bit integers alone: a quarter of the bytes, scores nearly right."""

from fedsi.inference.top_k.layer import Array, Choice, Highest, LayerKind, OutputRows
from fedsi.inference.top_k.quantised import QuantisedRows


class Int8:
    """Scores by 8-bit rows.

    Args:
        rows: The rows.
    """

    def __init__(self, rows: OutputRows) -> None:
        self._first, self._number = rows.first, len(rows)
        self._rows = QuantisedRows(rows.weight, rows.bias)

    @property
    def bytes_read(self) -> int:
        """Bytes of the 8-bit rows."""
        return self._rows.bytes_read

    def best(self, state: Array, count: int) -> Highest:
        """Return the rows with the highest rounded scores."""
        ids, kept = self._rows.highest(state, count, self._first)
        return Highest(ids, kept, self._rows.scores[: self._number])


def _build(rows: OutputRows, choice: Choice, states: Array) -> Int8:
    del choice, states
    return Int8(rows)


KIND = LayerKind(_build, "int8")
