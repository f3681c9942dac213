"""An output layer in parts of the vocabulary, each on a thread (DA-TOP-k of arXiv 2402.09360).

The k highest rows of all are among the k highest of each part, so merging them is exact if the
parts are: ids and scores have the bits of the undivided layer.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType

import numpy as np

from fedsi.inference.top_k.exact import empty
from fedsi.inference.top_k.layer import Array, Highest, OutputRows, TopK
from fedsi.kernels.cpu.int8_rows import highest_of


class InParts:
    """Merges the highest rows of several layers; a context that stops its threads.

    Args:
        rows: The rows.
        parts: Number of parts, at most that of the rows; each but the last has a thread.
        build: Makes a part's layer.
    """

    def __init__(self, rows: OutputRows, parts: int, build: Callable[[OutputRows], TopK]) -> None:
        ends = [len(rows) * part // parts for part in range(parts + 1)]
        self._starts = ends[:-1]
        self._layers = [build(_part(rows, *pair)) for pair in pairwise(ends)]
        self._threads = ThreadPoolExecutor(max(1, parts - 1))

    def __enter__(self) -> "InParts":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown()

    @property
    def bytes_read(self) -> int:
        """Bytes that all parts read."""
        return sum(layer.bytes_read for layer in self._layers)

    def best(self, state: Array, count: int) -> Highest:
        """Return the highest rows of all parts."""
        *others, last = self._layers
        waiting = [self._threads.submit(layer.best, state, count) for layer in others]
        own = last.best(state, count)
        found = [*(one.result() for one in waiting), own]
        rows = [one.ids + start for one, start in zip(found, self._starts, strict=True)]
        ids, kept = empty(count)
        number = highest_of(
            ids, kept, np.concatenate(rows), np.concatenate([one.scores for one in found])
        )
        return Highest(
            ids[:number],
            kept[:number],
            np.concatenate([one.of_all for one in found]),
            sum(one.rescored for one in found),
            fell_back=any(one.fell_back for one in found),
        )


def _part(rows: OutputRows, start: int, stop: int) -> OutputRows:
    first = max(0, rows.first - start)
    return OutputRows(rows.weight[start:stop], rows.bias[start:stop], first)
