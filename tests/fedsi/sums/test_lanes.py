"""Sums on a device against the compiled ones."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsi.sums.clipping import add_clipped
from fedsi.sums.fixed_point import decode
from fedsi.sums.lanes import add_clipped_lanes, add_lanes
from fedsi.sums.updates import add_update

SIZE = 37


def clients(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a start and six clients' parameters, one of them not a number and one infinite."""
    rng = np.random.default_rng(seed)
    start = rng.normal(size=SIZE).astype(np.float32)
    scales = np.array([1e-8, 1e-3, 1.0, 1e2, 1.0, 1.0])[:, None]
    trained = (start + rng.normal(size=(6, SIZE)) * scales).astype(np.float32)
    trained[4, 7], trained[5, 0] = np.nan, np.inf
    return start, trained


@given(st.integers(0, 10**6), st.floats(0.01, 1000))
def test_sums_are_those_of_numpy_bit_for_bit(seed: int, limit: float) -> None:
    start, trained = clients(seed)
    weights = np.random.default_rng(seed).uniform(0.1, 90, 6).astype(np.float32)
    expected, everything = np.zeros(SIZE, np.int64), np.array([[0, SIZE]])
    limit = float(np.float32(limit))
    accepted = [
        add_update(start, one, everything, weight, np.float32(limit), expected)
        for one, weight in zip(trained, weights, strict=True)
    ]
    sums = torch.zeros(SIZE, dtype=torch.int64)
    first, *others = map(torch.from_numpy, (start, trained, weights))
    assert add_lanes(first, others[0], others[1], limit, sums).tolist() == accepted
    assert not any(accepted[4:])
    assert np.array_equal(sums.numpy(), expected)


@given(st.integers(0, 10**6), st.floats(0.001, 100), st.sampled_from([[SIZE], [5, 20, SIZE]]))
def test_clipped_sums_are_those_of_numpy(seed: int, clip_norm: float, ends: list[int]) -> None:
    start, trained = clients(seed)
    layers = np.array(ends)
    for lane, one in enumerate(trained):
        expected, sums = np.zeros(SIZE, np.int64), torch.zeros(SIZE, dtype=torch.int64)
        norm, clipped = add_clipped(start, one, np.array([[0, SIZE]]), layers, clip_norm, expected)
        lanes = torch.from_numpy(trained[lane : lane + 1])
        norms, told = add_clipped_lanes(torch.from_numpy(start), lanes, layers, clip_norm, sums)
        assert np.isfinite(norms.item()) == np.isfinite(norm)
        if np.isfinite(norm):
            assert norms.item() == pytest.approx(norm, rel=1e-12)
        assert told.tolist() == [clipped]
        # The order of the squares' sum differs, so a factor may differ in its last bit.
        assert np.abs(sums.numpy() - expected).max() <= 1
        assert np.linalg.norm(decode(sums.numpy())) <= clip_norm
