"""The certified layer returns the exact layer's bits, whatever rows and states it is given."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsi.inference.top_k.exact import Exact
from fedsi.inference.top_k.hire_certified import HireCertified, directions
from fedsi.inference.top_k.layer import Array, OutputRows
from tests.output_layers import near_directions


def differences(layer: HireCertified, exact: Exact, states: Array) -> int:
    found = 0
    for state in states:
        best, right = layer.best(state, 3), exact.best(state, 3)
        found += best.ids.tolist() != right.ids.tolist()
        found += best.scores.tolist() != right.scores.tolist()
    return found


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    rank=st.integers(1, 24),
    noise=st.sampled_from([0.0, 0.01, 0.3, 2.0]),
    scale=st.sampled_from([1e-3, 1.0, 300.0]),
    copies=st.booleans(),
)
def test_certified_is_exact(seed: int, rank: int, noise: float, scale: float, copies: bool) -> None:
    rows, states = near_directions(150, 24, 60, seed)
    rng = np.random.default_rng(seed)
    weight = scale * (rows.weight + noise * rng.normal(size=rows.weight.shape))
    if copies:  # near-equal rows, which the cheap scores confuse
        weight[75:] = weight[:75] * (1 + 1e-6 * rng.normal(size=(75, 1)))
    made = OutputRows(weight.astype(np.float32), (scale * rows.bias).astype(np.float32))
    # Calibrated on other states than it is asked about.
    layer = HireCertified(made, directions(made, states[:30]), rank, 4)
    asked = np.concatenate([states[30:], 10 * states[:2], rng.normal(size=(4, 24))])
    assert differences(layer, Exact(made), asked.astype(np.float32)) == 0


def test_without_its_bounds_it_is_wrong_and_with_them_it_seldom_needs_all_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, states = near_directions(600, 24, 200)
    layer = HireCertified(rows, directions(rows, states[:100]), 8, 3)
    asked = states[100:]
    best = [layer.best(state, 3) for state in asked]
    assert np.mean([one.fell_back for one in best]) < 0.5
    assert any(one.fell_back for one in best) or max(one.rescored for one in best) > 6
    monkeypatch.setattr(layer, "_factors", lambda *_: np.zeros(4, np.float32))
    assert differences(layer, Exact(rows), asked) > 0
