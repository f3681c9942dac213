"""Log odds and their comparison, against direct evaluations."""

import numpy as np
import pytest
import torch

from fedsi.inference.deviations import class_log_odds, deviations_of


def test_log_odds_are_those_of_the_probability_and_finite_where_it_is_1() -> None:
    logits = torch.tensor([[1.0, 2.0, -1.0], [200.0, 0.0, 0.0]])
    classes = torch.tensor([1, 0])
    share = logits[:1].double().softmax(1)[0, 1].item()
    found = class_log_odds(logits, classes)
    assert found == pytest.approx([np.log(share / (1 - share)), 200 - np.log(2)])


def test_a_known_line_and_its_low_confidence_share() -> None:
    teacher = np.linspace(-3, 5, 400)
    noise = np.random.default_rng(0).normal(0, 0.5, 400)
    found = deviations_of(teacher, 1.5 * teacher - 1 + noise)
    assert found.slope == pytest.approx(1.5, abs=0.03)
    assert found.intercept == pytest.approx(-1, abs=0.08)
    assert found.correlation > 0.98
    assert found.spread == pytest.approx(1.5, abs=0.05)
    assert found.below > 0.98  # at -3 to -1 the line lies 2.5 to 1.5 below the diagonal
    itself = deviations_of(teacher, teacher)
    assert (itself.slope, itself.spread, itself.below) == pytest.approx((1, 1, 0))
    assert deviations_of(teacher, 0 * teacher).correlation == 0


def test_too_little_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="3 positions are too few"):
        deviations_of(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="equally confident everywhere"):
        deviations_of(np.ones(9), np.zeros(9))
