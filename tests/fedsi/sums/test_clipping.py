import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fedsi.limits import FRACTION_BITS
from fedsi.sums.clipping import add_clipped, layer_ends, move_clipped

Vector = NDArray[np.float32]
entries = st.floats(-1e3, 1e3, width=32)
updates = arrays(np.float32, 12, elements=entries)
clip_norms = st.floats(1e-6, 1e3)
SHAPES = ((2, 3), (1,), (5,))


def clip(
    update: Vector, clip_norm: float, clipping: str = "flat", shapes: Sequence[tuple[int, ...]] = ()
) -> tuple[NDArray[np.int64], float, bool]:
    sums = np.zeros(len(update), np.int64)
    ends = layer_ends(shapes or ((len(update),),), clipping)
    zeros = np.zeros_like(update)
    everything = np.array([[0, len(update)]])
    return sums, *add_clipped(zeros, update, everything, ends, clip_norm, sums)


def exact_norm_squared(sums: NDArray[np.int64]) -> int:
    """Return the squared norm of integers without any rounding."""
    return sum(int(n) ** 2 for n in sums)


@given(arrays(np.float32, 40, elements=st.floats(-(2.0**50), 2.0**50, width=32)), clip_norms)
def test_a_client_moves_the_sum_by_at_most_the_clip_norm(update: Vector, clip_norm: float) -> None:
    sums, _, _ = clip(update, clip_norm)
    bound = clip_norm * 2**FRACTION_BITS
    # Compared as integers: squares of what floats can say exactly.
    numerator, denominator = bound.as_integer_ratio()
    assert exact_norm_squared(sums) * denominator**2 <= numerator**2


@given(updates, clip_norms)
def test_per_layer_clipping_bounds_each_layer_and_the_whole(
    update: Vector, clip_norm: float
) -> None:
    sums, _, _ = clip(update, clip_norm, "per_layer", SHAPES)
    values = sums * 2.0**-FRACTION_BITS
    for layer in np.split(values, layer_ends(SHAPES, "per_layer")[:-1]):
        assert np.linalg.norm(layer) <= clip_norm / math.sqrt(3) * (1 + 1e-12)
    assert np.linalg.norm(values) <= clip_norm * (1 + 1e-12)


@given(updates, clip_norms, st.sampled_from(["flat", "per_layer"]))
def test_it_is_the_textbook_formula(update: Vector, clip_norm: float, clipping: str) -> None:
    sums, norm, clipped = clip(update, clip_norm, clipping, SHAPES)
    layers = [update.astype(np.float64)]
    if clipping == "per_layer":
        layers = np.split(layers[0], [6, 7])
    limit = clip_norm / math.sqrt(len(layers))
    norms = [float(np.linalg.norm(layer)) for layer in layers]
    expected = [
        layer * min(1.0, limit / n) if n else layer for layer, n in zip(layers, norms, strict=True)
    ]
    got = sums * 2.0**-FRACTION_BITS
    assert np.allclose(got, np.concatenate(expected), rtol=1e-8, atol=2.0**-FRACTION_BITS)
    assert norm == pytest.approx(np.linalg.norm(update.astype(np.float64)))
    if not any(math.isclose(n, limit, rel_tol=1e-6) for n in norms):
        assert clipped == any(n > limit for n in norms)


@given(updates, updates, clip_norms)
def test_sums_add_up(one: Vector, two: Vector, clip_norm: float) -> None:
    ends = layer_ends(((12,),), "flat")
    together = np.zeros(12, np.int64)
    for update in (one, two):
        everything = np.array([[0, 12]])
        add_clipped(np.zeros_like(update), update, everything, ends, clip_norm, together)
    assert np.array_equal(together, clip(one, clip_norm)[0] + clip(two, clip_norm)[0])


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(poison: float) -> None:
    update = np.ones(20_000, np.float32)
    update[-1] = poison
    sums, norm, clipped = clip(update, 1.0)
    assert not sums.any()
    assert not math.isfinite(norm)
    assert not clipped


@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
@pytest.mark.parametrize("clip_norm", [0.5, 1e9])
def test_only_touched_spans_are_read_and_nothing_else_changes(
    clipping: str, clip_norm: float
) -> None:
    shapes = ((5_000, 8), (30,), (300, 60))
    ends = layer_ends(shapes, clipping)
    size = int(layer_ends(shapes, "flat")[-1])
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(1_000, 40, replace=False))
    spans = np.array([*((8 * row, 8 * row + 8) for row in rows), (40_000, size)])
    start = rng.normal(size=size).astype(np.float32)
    trained = start.copy()
    for first, last in spans:
        trained[first:last] += rng.normal(size=last - first).astype(np.float32)
    whole, some = np.zeros((2, size), np.int64)
    expected = add_clipped(start, trained, np.array([[0, size]]), ends, clip_norm, whole)
    start[20_000:30_000] = trained[20_000:30_000] = np.nan
    assert add_clipped(start, trained, spans, ends, clip_norm, some) == expected
    assert np.array_equal(some, whole)
    before, moved = trained.copy(), np.zeros(size, np.int64)
    assert move_clipped(start, trained, spans, ends, clip_norm, moved) == expected
    assert np.array_equal(moved, whole)
    for first, last in spans:
        assert np.array_equal(trained[first:last], start[first:last])
        before[first:last] = start[first:last]
    assert np.array_equal(trained, before, equal_nan=True)


def test_an_update_that_is_not_finite_is_not_moved() -> None:
    start, trained = np.zeros((2, 20_000), np.float32)
    trained[:] = 1.0
    trained[-1] = np.nan
    sums, everything = np.zeros(20_000, np.int64), np.array([[0, 20_000]])
    norm, clipped = move_clipped(start, trained, everything, everything[0, 1:], 1.0, sums)
    assert not math.isfinite(norm)
    assert not clipped
    assert not sums.any()
    assert trained[0] == 1.0


def test_a_zero_update_is_fine() -> None:
    sums, norm, clipped = clip(np.zeros(5, np.float32), 1.0)
    assert not sums.any()
    assert (norm, clipped) == (0.0, False)


def test_an_update_within_the_norm_is_kept() -> None:
    sums, norm, clipped = clip(np.array([0.25, -0.5], np.float32), 1.0)
    assert (sums * 2.0**-FRACTION_BITS).tolist() == [0.25, -0.5]
    assert norm == pytest.approx(math.sqrt(0.3125))
    assert not clipped
