import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from simulations.reports.figures import clients_histogram, svg


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
