"""HiRE with a certificate: a bound on each row's error, and all rows where it is not enough.

States h have a mean m and principal directions V, of which the first r are used: ``p = V_r^T (h -
m)``. The cheap score of row i is that of 8-bit integers for ``W V_r``. It differs from the exact
score by at most ::

    |e_i| |p| + |t_i| |q| + |w_i| f

where e_i is what rounding changed in the row, t_i is the row along the other directions, q is ``h -
m`` along them, and f is what rounding changed in p (Cauchy-Schwarz); further terms bound the
rounding of float32 arithmetic. The exact scores of a few candidates give a k-th highest score. Only
rows whose cheap score plus bound reaches it can be among the k highest, so these are scored exactly
too. If they are too many, all rows are scored. Either way ids and scores have the bits of the exact
layer. HiRE is by Samaga B L et al. (arXiv 2402.09360); the certificate is ours.
"""

import math
from dataclasses import dataclass

import numpy as np

from fedsi.inference.top_k.exact import Exact
from fedsi.inference.top_k.hire_lr import ranks_of
from fedsi.inference.top_k.layer import (
    CANDIDATES,
    RANK,
    Array,
    Choice,
    Highest,
    LayerKind,
    OutputRows,
)
from fedsi.inference.top_k.quantised import QuantisedRows
from fedsi.kernels.cpu.int8_rows import OFFSET, exact_scores, rows_above

USUAL = 16
"""Candidates unless the user gives a number."""
MOST = 0.125
"""Share of the rows above which all are scored: reading scattered rows is slower."""
_UNIT = 2.0**-24
"""Relative rounding error of float32."""
_UPWARDS = 1 + 2.0**-16
"""Makes up for rounding in the bounds' own arithmetic."""
_TRIED = 48
"""States on which ranks are compared."""


@dataclass(frozen=True)
class Directions:
    """The rows along the principal directions of the states."""

    mean: Array
    """m, float64 ``[size]``."""
    basis: Array
    """V, float64 ``[size, size]``, the direction of the largest variance first."""
    rows: Array
    """``W V``, float64 ``[rows, size]``."""


def directions(rows: OutputRows, states: Array) -> Directions:
    """Compute the principal directions of some states, ``[states, size]``."""
    mean = states.mean(axis=0, dtype=np.float64)
    centred = states - mean
    _, basis = np.linalg.eigh(centred.T @ centred)
    basis = basis[:, ::-1]
    return Directions(mean, basis, rows.weight @ basis)


class HireCertified:
    """Candidates by 8-bit rows along some directions, bounds, then exact scores.

    Args:
        rows: The rows.
        along: The rows along the principal directions.
        rank: r.
        candidates: Rows whose exact scores give the k-th highest score.
    """

    def __init__(self, rows: OutputRows, along: Directions, rank: int, candidates: int) -> None:
        self._number, self._first = len(rows), rows.first
        self.rank, self._candidates = rank, candidates
        self._exact = Exact(rows)
        self._mean = along.mean
        self._right = np.ascontiguousarray(along.basis[:, :rank].T)
        self._shift = np.zeros(rank)
        bias = rows.bias + rows.weight @ along.mean
        self._rows = QuantisedRows(along.rows[:, :rank], bias)
        self._arithmetic = (16 + rank / 32) * _UNIT
        self._summing = (rows.size + 4) * _UNIT
        self._bounds = np.zeros((4, len(self._rows.scores)), np.float32)
        self._bounds[:, : len(rows)] = _UPWARDS * np.stack([
            self._rows.errors,
            np.linalg.norm(along.rows[:, rank:], axis=1),
            np.linalg.norm(rows.weight.astype(np.float64), axis=1),
            self._arithmetic * np.abs(bias) + self._summing * np.abs(rows.bias),
        ])  # fmt: skip
        self._found = np.empty(max(candidates, int(MOST * len(rows))), np.int64)

    @property
    def bytes_read(self) -> int:
        """Bytes of the 8-bit rows, their bounds and the directions."""
        return self._rows.bytes_read + self._bounds.nbytes + self._right.nbytes

    def best(self, state: Array, count: int) -> Highest:
        """Return the highest rows; ids and scores have the bits of the exact layer."""
        centred = state - self._mean
        vector = np.empty(self.rank)
        exact_scores(vector, self._right, self._shift, centred[None])
        found, _ = self._rows.highest(
            vector.astype(np.float32), max(count, self._candidates), self._first
        )
        best = self._exact.best_of(state, found, count, self._rows.scores)
        if len(best.ids) == count:
            factors = self._factors(state, centred, vector)
            number = rows_above(
                self._found, self._rows.scores, self._bounds, factors, best.scores[-1]
            )
            if number <= len(self._found):
                near = self._found[:number]
                near = near[near >= self._first]
                best = self._exact.best_of(state, near, count, self._rows.scores)
                of_all = best.of_all[: self._number]
                return Highest(best.ids, best.scores, of_all, rescored=len(found) + len(near))
        whole = self._exact.best(state, count)
        return Highest(whole.ids, whole.scores, whole.of_all, self._number, fell_back=True)

    def _factors(self, state: Array, centred: Array, vector: Array) -> Array:
        """Return the factors of the bounds' terms for a state, float32 ``[4]``."""
        square, kept = float(centred @ centred), float(vector @ vector)
        length = math.sqrt(kept)
        step = float(np.abs(vector).max()) / (OFFSET - 1)
        rounded = math.sqrt(self.rank) * 0.5001 * step + length * _UNIT
        rest = math.sqrt(max(square - kept, 0.0) + 1e-12 * square)
        size = math.sqrt(float(np.square(state, dtype=np.float64).sum()))
        arithmetic = self._arithmetic * (length + rounded) + self._summing * size
        return np.array(
            [length + rounded, rest, rounded + arithmetic, 1.0], np.float32
        ) * np.float32(_UPWARDS)


def _build(rows: OutputRows, choice: Choice, states: Array) -> HireCertified:
    """Build a layer; without a given rank, take that which reads the fewest bytes on the states."""
    candidates = max(choice.candidates or USUAL, choice.count)
    along = directions(rows, states)
    if choice.rank is not None:
        return HireCertified(rows, along, choice.rank, candidates)
    layers = (HireCertified(rows, along, rank, candidates) for rank in ranks_of(rows.size))
    return min(layers, key=lambda layer: _bytes_per_state(layer, states[:_TRIED], choice.count))


def _bytes_per_state(layer: HireCertified, states: Array, count: int) -> float:
    """Return the mean number of bytes that a layer reads for a state, exact rows included."""
    rescored = sum(layer.best(state, count).rescored for state in states)
    row: int = 4 * states.shape[1]
    return layer.bytes_read + row * rescored / max(1, len(states))


KIND = LayerKind(_build, "HiRE, certified", frozenset({CANDIDATES, RANK}), calibrated=True)
