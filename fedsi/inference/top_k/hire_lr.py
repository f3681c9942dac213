"""HiRE with rows of low rank (Samaga B L et al., arXiv 2402.09360).

States h have a mean m and a covariance S. With U the r leading right singular vectors of ``W
S^(1/2)``, the cheap scores are ``B A (h - m) + (W m + b)`` with ``B = W S^(1/2) U`` and ``A = U^T
S^(-1/2)``: of all matrices of rank r in place of W this has the least mean squared error over such
states. The mean is ours, as are the 8-bit integers for B. Exact scores choose among the k'
candidates.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedsi.inference.top_k.exact import Exact
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
from fedsi.kernels.cpu.int8_rows import exact_scores

USUAL = 64
"""Candidates unless the user gives a number."""
RANKS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_LEAST_VARIANCE = 1e-6
"""Smallest variance along a direction, as a share of the mean over directions: states may lie in a
subspace, or be fewer than directions."""


@dataclass(frozen=True)
class LowRank:
    """The two factors, of all ranks: the first r columns of B and rows of A have rank r."""

    left: Array
    """B, float64 ``[rows, size]``."""
    right: Array
    """A, float64 ``[size, size]``."""
    mean: Array
    """m, float64 ``[size]``."""


def factors(rows: OutputRows, states: Array) -> LowRank:
    """Compute the factors from some states, ``[states, size]``."""
    weight = rows.weight.astype(np.float64)
    mean = states.mean(axis=0, dtype=np.float64)
    centred = states - mean
    variances, basis = np.linalg.eigh(centred.T @ centred / len(states))
    variances = variances.clip(_LEAST_VARIANCE * max(variances.mean(), np.finfo(float).tiny))
    root = basis * np.sqrt(variances) @ basis.T
    _, vectors = np.linalg.eigh(root @ (weight.T @ weight) @ root)
    leading = vectors[:, ::-1]
    back = basis / np.sqrt(variances) @ basis.T
    return LowRank(weight @ root @ leading, leading.T @ back, mean)


class HireLr:
    """Candidates by rows of low rank, then exact scores.

    Args:
        rows: The rows.
        low: The factors.
        rank: r.
        candidates: k'.
    """

    def __init__(self, rows: OutputRows, low: LowRank, rank: int, candidates: int) -> None:
        self._first, self._number = rows.first, len(rows)
        self._bias = bias = (rows.bias + rows.weight @ low.mean).astype(np.float32)
        self.rank, self.number = rank, candidates
        self._exact = Exact(rows)
        self._rows = QuantisedRows(low.left[:, :rank], bias)
        self._right = np.ascontiguousarray(low.right[:rank], np.float32)
        self._shift = (-low.right[:rank] @ low.mean).astype(np.float32)
        self._vector = np.empty(rank, np.float32)

    @property
    def bytes_read(self) -> int:
        """Bytes of both factors."""
        return self._rows.bytes_read + self._right.nbytes + self._shift.nbytes

    def candidates(self, state: Array) -> Array:
        """Return the ids of the candidates."""
        exact_scores(self._vector, self._right, self._shift, state[None])
        return self._rows.highest(self._vector, self.number, self._first)[0]

    def matrices(self) -> tuple[Array, Array, Array, Array]:
        """Return B, ``W m + b`` (-inf for rows that are no words), A and ``-A m``, float32."""
        left = self._rows.rounded_rows()[: self._number, : self.rank].astype(np.float32)
        bias = np.where(np.arange(self._number) < self._first, -np.inf, self._bias)
        return left, bias.astype(np.float32), self._right, self._shift

    def best(self, state: Array, count: int) -> Highest:
        """Return the highest of the candidates."""
        found = self.candidates(state)
        return self._exact.best_of(state, found, count, self._rows.scores[: self._number])


def ranks_of(size: int) -> Iterator[int]:
    """Yield the ranks that are tried, from below; the last is the full size."""
    yield from (rank for rank in RANKS if rank < size)
    yield size


def _build(rows: OutputRows, choice: Choice, states: Array) -> HireLr:
    """Build a layer; without a given rank, double the lowest that misses no word on the states.

    A quarter of the states is kept for this choice; the factors come from the others. The rank is
    doubled because the states that a layer is asked about are less alike than these.
    """
    candidates = choice.candidates or max(USUAL, choice.count)
    part = len(states) // 4
    low = factors(rows, states[part:])
    if choice.rank is not None:
        return HireLr(rows, low, choice.rank, candidates)
    exact, kept = Exact(rows), states[:part]
    right = [set(exact.best(state, choice.count).ids.tolist()) for state in kept]
    for rank in ranks_of(rows.size):
        layer = HireLr(rows, low, rank, candidates)
        found = (layer.candidates(state).tolist() for state in kept)
        if all(words <= set(ids) for words, ids in zip(right, found, strict=True)):
            break
    return HireLr(rows, low, min(2 * rank, rows.size), candidates)


KIND = LayerKind(_build, "HiRE, low rank", frozenset({CANDIDATES, RANK}), calibrated=True)
