"""Curves from tables of rounds: by seed, without the untrained model, minus a named line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsi.errors import UserError
from simulations.benchmarks.curves import CurvesFigure, Line, curves_figure, losses_by_seed, main

ROUNDS = pd.DataFrame(
    {
        "round": [0, 10, 20, 0, 10, 20],
        "arm": ["A", "A", "A", "B", "B", "B"],
        "seed1": [7.0, 5.0, 4.0, 7.0, 5.5, 4.5],
        "seed2": [7.0, 6.0, 5.0, 7.0, 6.25, 5.25],
        "seed3": [7.0, 5.0, 4.5, np.nan, np.nan, np.nan],
    }
)
A = Line(name="a", architecture="cifg", where={"arm": "A"})
B = Line(name="b", architecture="si_cifg", where={"arm": "B"}, minus="a")
FIGURE = CurvesFigure(
    name="both", rounds="rounds.csv", subtracted="a", ngrams={"bigram": 4.4}, line=[A, B]
)


def test_losses_are_by_seed_and_round_without_the_untrained_model() -> None:
    assert losses_by_seed(A, ROUNDS)[3] == {10: 5.0, 20: 4.5}
    assert losses_by_seed(B, ROUNDS) == {1: {10: 5.5, 20: 4.5}, 2: {10: 6.25, 20: 5.25}}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"arm": "C"}, "no row matches"),
        ({}, "more than one row of a round"),
        ({"rate": 0.1}, "no column rate"),
    ],
)
def test_a_line_that_is_not_there_or_not_one_is_refused(
    where: dict[str, str | float], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        losses_by_seed(A.model_copy(update={"where": where}), ROUNDS)


def test_the_panels_have_the_means_and_the_differences_of_common_seeds() -> None:
    losses, apart = curves_figure(FIGURE, ROUNDS).axes
    drawn = {line.get_label(): line.get_xydata() for line in losses.lines}
    assert drawn["a"] == pytest.approx(np.array([[10, 16 / 3], [20, 4.5]]))
    assert drawn["b"] == pytest.approx(np.array([[10, 5.875], [20, 4.875]]))
    expected = np.array([[10, 0.375], [20, 0.375]])
    assert any(line.get_xydata() == pytest.approx(expected) for line in apart.lines[1:])
    assert not apart.collections, "two common seeds allow no band"


def test_the_legend_says_that_a_mean_lacks_rounds_because_a_seed_ended() -> None:
    ended = ROUNDS.copy()
    ended.loc[2, "seed2"] = np.nan
    figure = curves_figure(FIGURE, ended)
    drawn = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    told = "a (mean of 1 of 2 rounds: seeds lack the others)"
    assert drawn[told] == pytest.approx(np.array([[10, 16 / 3]]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [told, "b"]


def test_the_command_writes_each_figure(tmp_path: Path) -> None:
    ROUNDS.to_csv(tmp_path / "rounds.csv", index=False)
    (tmp_path / "list.toml").write_text(
        '[[figure]]\nname = "both"\nrounds = "rounds.csv"\nsubtracted = "a"\n'
        '[[figure.line]]\nname = "a"\narchitecture = "cifg"\nwhere = { arm = "A" }\n'
        '[[figure.line]]\nname = "b"\narchitecture = "si_cifg"\nwhere = { arm = "B" }\n'
        'minus = "a"\n'
    )
    main([str(tmp_path / "list.toml"), str(tmp_path / "out")])
    assert (tmp_path / "out" / "both.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "both.svg").exists()


def test_the_figures_of_the_replication_can_be_drawn_from_its_tables(tmp_path: Path) -> None:
    docs = Path(__file__).parents[3] / "docs"
    main([str(docs / "replication" / "curves.toml"), str(tmp_path)])
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn
    assert drawn <= {path.name for path in (docs / "images").iterdir()}
