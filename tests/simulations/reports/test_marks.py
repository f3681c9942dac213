"""Marks beside curves: labels that do not overlap, strips outside the range of values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from simulations.reports.marks import diverged_strips, ngram_lines, spread
from simulations.reports.study_figure import study_figure
from simulations.reports.study_legend import legend_columns
from simulations.reports.tradeoff_figure import tradeoff_figure
from tests.simulations.reports.test_study import comparison
from tests.simulations.reports.test_tradeoff_report import tradeoff


@given(st.lists(st.floats(-100, 100), max_size=8), st.floats(0.01, 10))
def test_labels_keep_their_distance_and_their_order(values: list[float], gap: float) -> None:
    places = spread(values, gap)
    assert all(place >= value for place, value in zip(places, values, strict=True))
    if values:
        assert min(places) == min(values)
    order = sorted(range(len(values)), key=lambda one: values[one])
    assert np.all(np.diff([places[one] for one in order]) >= 0.999 * gap)


def test_labels_of_near_losses_do_not_overlap() -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [4, 7])
    ngram_lines(axes, {"unigram": 6.0, "bigram": 5.31, "trigram": 5.3})
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts][1:] == ["bigram 5.31", "trigram 5.30"]
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


@pytest.mark.parametrize("above", [True, False])
def test_a_strip_lies_outside_the_values_and_has_no_tick(above: bool) -> None:
    axes = Figure().subplots()
    axes.plot([0, 1], [4, 7])
    low, high = axes.get_ylim()
    diverged_strips(axes, {"#1f5fa8": [0.5], "#c8500a": [], "#0a7f6e": [0, 1]}, above=above)
    crosses = [np.asarray(line.get_ydata()) for line in axes.lines if line.get_marker() == "x"]
    assert [len(one) for one in crosses] == [1, 2]
    assert len({float(one[0]) for one in crosses}) == 2, "each arm has a strip of its own"
    assert all((one > high).all() if above else (one < low).all() for one in crosses)
    assert all(low <= tick <= high for tick in axes.get_yticks())


def test_diverged_settings_are_marked_above_every_loss() -> None:
    for figure, panel in ((study_figure(comparison(3)), 2), (tradeoff_figure(tradeoff()), 0)):
        axes = figure.axes[panel]
        (mark,) = (line for line in axes.lines if line.get_marker() == "x")
        values = [
            np.asarray(line.get_ydata()).max() for line in axes.lines if line.get_marker() == "o"
        ]
        assert np.asarray(mark.get_ydata()).min() > max(*values, 6.0)
        assert axes.get_legend() is None
        assert len(figure.legends) == 1


def test_long_labels_stand_in_fewer_columns() -> None:
    assert legend_columns(["CIFG", "SI-CIFG"]) == 4
    assert legend_columns(["CIFG", "training fed_avg, model.initialisation mimetic"]) == 2
    assert legend_columns(["x" * 300]) == 1
    assert legend_columns([]) == 4
