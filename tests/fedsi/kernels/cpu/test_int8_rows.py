"""Cheap scores are those of the rounded numbers, and every kernel adds the same integers."""

import numpy as np
import pytest

from fedsi.compiler import compiled
from fedsi.inference.top_k.layer import Array
from fedsi.inference.top_k.quantised import QuantisedRows
from fedsi.kernels.cpu.int8_tiles import (
    LANES,
    fast_panel_products,
    portable_panel_products,
)


@compiled
def _fast(high: Array, low: Array, panels: Array, a: Array, b: Array) -> None:
    fast_panel_products(high, low, panels, a, b)


@compiled
def _portable(high: Array, low: Array, panels: Array, a: Array, b: Array) -> None:
    portable_panel_products(high, low, panels, a, b)


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_both_kernels_add_the_same_integers(steps: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(-127, 128, (3, steps, LANES, 4), dtype=np.int8)
    state = rng.integers(0, 256, (2, steps, 4), dtype=np.uint8)
    rows[0], state[:, 0] = -127, 255  # the extremes
    panels = np.ascontiguousarray(rows).view(np.int32)[..., 0]
    halves = state.view(np.int32)[..., 0]
    expected = np.einsum("psli,hsi->hpl", rows.astype(np.int64), state.astype(np.int64))
    for kernel in (_fast, _portable):
        high, low = np.zeros((2, 3, LANES), np.int32)
        kernel(high, low, panels, *halves)
        assert (high == expected[0]).all()
        assert (low == expected[1]).all()


@pytest.mark.parametrize("shape", [(70, 33), (1100, 8), (5, 1)])
def test_cheap_scores_are_those_of_the_rounded_rows(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    rows, bias = rng.normal(size=shape), rng.normal(size=shape[0])
    vector = rng.normal(size=shape[1]).astype(np.float32)
    made = QuantisedRows(rows, bias)
    ids, kept = made.highest(vector, 4, 2)
    rounded = made.rounded_rows()[: shape[0], : shape[1]]
    assert abs(rounded - rows).max() <= 0.51 * abs(rows).max() / 127
    np.testing.assert_allclose(made.errors, np.linalg.norm(rounded - rows, axis=1), atol=1e-12)
    scores = rounded @ vector + bias
    np.testing.assert_allclose(made.scores[: shape[0]], scores, atol=1e-4 * abs(scores).max())
    assert ids.tolist() == (np.argsort(-scores[2:])[:4] + 2).tolist()
    np.testing.assert_array_equal(kept, made.scores[ids])
    assert (made.scores[shape[0] :] == -np.inf).all()
