from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedsi.tasks.next_word import TASK
from server.round_record import RoundRecord
from simulations.reports.figures import clients_histogram, run_curves, svg
from tests.summaries import PRIVACY, SUMMARY


def bars_of(figure: Figure) -> list[Rectangle]:
    return [bar for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]


def test_the_histogram_counts_every_client_once() -> None:
    words = np.array([1, 2, 3, 4, 7, 8, 1000])
    figure = clients_histogram(words)
    bars = [bar for bar in bars_of(figure) if bar.get_height()]
    assert [(bar.get_x(), bar.get_height()) for bar in bars] == [
        (1, 1),
        (2, 2),
        (4, 2),
        (8, 1),
        (512, 1),
    ]
    median, most = figure.axes[0].lines
    assert median.get_xdata() == pytest.approx([4, 4])
    assert most.get_xdata() == pytest.approx([404.8, 404.8])


@pytest.mark.parametrize("words", [[1], [64, 64], [2**20]])
def test_a_histogram_of_equal_clients(words: list[int]) -> None:
    figure = clients_histogram(np.array(words))
    assert sum(bar.get_height() for bar in bars_of(figure)) == len(words)
    assert "<svg" in svg(figure)


def test_curves_of_a_private_run_show_what_it_spent() -> None:
    records = [
        RoundRecord(number, 5.0, 9, 0, 0, 0, 99, 1.0, epsilon=number / 10) for number in (1, 2, 3)
    ]
    claim = replace(PRIVACY, epsilon=0.3, mechanism="blt", extrapolated=False)
    summary = replace(SUMMARY, privacy=claim)
    spent = run_curves(records, summary, TASK).axes[2]
    assert spent.get_title() == "Epsilon so far (blt)"
    assert np.asarray(spent.lines[0].get_ydata()).tolist() == [0.1, 0.2, 0.3]
    extrapolated = replace(claim, extrapolated=True)
    figure = run_curves(records, replace(summary, privacy=extrapolated), TASK)
    assert "extrapolated" in figure.axes[2].get_title()
    for unbounded in (None, replace(claim, epsilon=None)):
        assert len(run_curves(records, replace(summary, privacy=unbounded), TASK).axes) == 2
