import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi import UserError
from fedsi.privacy.adaptive_clipping import count_noise, next_clip_norm, update_noise_multiplier


@given(st.floats(0.1, 5), st.floats(60, 1e6))
def test_counts_and_updates_together_cost_the_whole_budget(z: float, cohort: float) -> None:
    left = update_noise_multiplier(z, cohort)
    assert left > z
    # Two Gaussian mechanisms compose by the sum of their squared sensitivity over noise; the count
    # moves by one half.
    assert left**-2 + (0.5 / count_noise(cohort)) ** 2 == pytest.approx(z**-2)


def test_a_cohort_can_be_too_small() -> None:
    with pytest.raises(UserError, match="below a tenth of the cohort"):
        update_noise_multiplier(1.0, 10)
    assert update_noise_multiplier(0.0, 10) == 0.0


def test_the_clip_norm_is_the_papers_formula() -> None:
    # 30 of 40 clients unclipped is a share of 0.75, 0.25 above the median.
    assert next_clip_norm(2.0, 30, 40, 40, 0.5, 0.0) == pytest.approx(2 * math.exp(-0.05))
    # Half of an expected cohort of 80: missing clients count as undecided.
    assert next_clip_norm(1.0, 40, 40, 80, 0.5, 0.0) == pytest.approx(math.exp(-0.2 * 0.25))
    # Noise cannot take the share out of [0, 1].
    assert next_clip_norm(1.0, 0, 40, 40, 0.5, -1e6) == pytest.approx(math.exp(0.1))


def test_it_finds_the_quantile() -> None:
    rng = np.random.default_rng(0)
    clip_norm, course = 1.0, []
    for _ in range(300):
        norms = rng.lognormal(1.0, 0.5, 100)
        unclipped = int((norms <= clip_norm).sum())
        noise = rng.normal(0, count_noise(100))
        clip_norm = next_clip_norm(clip_norm, unclipped, 100, 100, 0.8, noise)
        course.append(clip_norm)
    expected = math.exp(1.0 + 0.5 * 0.8416)
    assert np.mean(course[100:]) == pytest.approx(expected, rel=0.05)
