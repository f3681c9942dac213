"""The range of a panel over rounds: that of its later rounds, if it is much smaller."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from simulations.reports.marks import ngram_lines
from simulations.reports.ranges import leave_out_start

LATER = np.linspace(5.45, 4.8, 8)


@pytest.mark.parametrize(
    ("values", "lines", "low", "high"),
    [
        ([9.0, 5.9, 5.5, *LATER], [], 4.8, 5.45),
        ([9.0, 5.9, 5.5, *LATER], [4.5, 5.6], 4.5, 5.6),
        ([9.0, 5.9, 5.5, *LATER], [4.5, 6.0], 4.5, 5.45),
        ([3.0, 5.9, 5.5, *LATER], [], 4.8, 5.45),
        ([3.0, 5.9, 5.5, *LATER], [4.0], 4.0, 5.45),
    ],
)
def test_the_later_rounds_and_near_lines_are_in_range(
    values: list[float], lines: list[float], low: float, high: float
) -> None:
    axes = Figure().subplots()
    leave_out_start(axes, np.stack([np.arange(11.0), values], 1), [5.0], lines)
    assert axes.get_ylim() == pytest.approx((low - 0.05 * (high - low), high + 0.05 * (high - low)))


@pytest.mark.parametrize(
    ("rounds", "values", "lines"),
    [
        (np.arange(11.0), [5.5, 5.5, 5.5, *LATER], [5.6]),
        (np.array([0.0, 10.0]), [9.0, 4.0], []),
        (np.arange(11.0), [5.0] * 11, []),
        (np.zeros(0), [], [4.0]),
    ],
    ids=["nothing is far", "one later round", "all are equal", "no curve"],
)
def test_otherwise_the_range_is_that_of_all(
    rounds: np.ndarray, values: list[float], lines: list[float]
) -> None:
    axes = Figure().subplots()
    axes.set_ylim(-1, 11)
    leave_out_start(axes, np.stack([rounds, values], 1), [5.0], lines)
    assert axes.get_ylim() == (-1, 11)


def test_the_label_of_a_line_above_the_range_points_there() -> None:
    axes = Figure().subplots()
    axes.set_ylim(4, 5)
    ngram_lines(axes, {"unigram": 6.0, "bigram": 4.5})
    assert [text.get_text() for text in axes.texts] == ["unigram 6.00 \u2191", "bigram 4.50"]
    assert [text.get_position()[1] for text in axes.texts] == [5.0, 4.5]
    assert axes.get_ylim() == (4, 5)
