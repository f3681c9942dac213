"""Differences over studies: paired by seed, with t's interval, from tables of runs."""

import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from fedsi.errors import UserError
from simulations.benchmarks.differences import (
    Difference,
    Found,
    differences_figure,
    differences_table,
    found_in,
    main,
    markdown,
    subtracted,
)
from simulations.reports.study_words import interval_text
from simulations.studies.statistics import Interval

RUNS = pd.DataFrame(
    {
        "arm": ["A", "A", "A", "B", "B", "B", "B", "A"],
        "rounds": [9, 9, 9, 9, 9, 9, 9, 3],
        "seed": [1, 2, 3, 3, 1, 2, 4, 1],
        "loss": [1.0, 2.0, 3.0, 3.5, 1.25, 2.5, 9.0, 70.0],
        "best": [1.0, 2.0, 3.0, float("inf"), 1.25, 2.5, 9.0, 70.0],
    }
)
LISTED = Difference(
    setting="short", runs="runs.csv", loss="loss", where={"rounds": 9}, first={"arm": "A"},
    second={"arm": "B"},
)  # fmt: skip


def test_runs_are_paired_by_seed_and_the_interval_is_that_of_scipy() -> None:
    found = subtracted(LISTED, RUNS)
    gaps = [-0.25, -0.5, -0.5]
    expected = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert found.seeds == 3
    assert found.interval.estimate == pytest.approx(sum(gaps) / 3)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected))
    assert found.p_value == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)


def test_two_seeds_have_no_interval_however_near_they_are() -> None:
    found = subtracted(LISTED, RUNS[RUNS["seed"] != 3])
    assert (found.seeds, found.side) == (2, "neither")
    assert interval_text(found.interval) == "-0.375"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"where": {}}, "more than one run of a seed matches"),
        ({"second": {"arm": "C"}}, "no seed of runs.csv has runs of both"),
        ({"first": {"cell": "A"}}, "has no column cell"),
        ({"loss": "test_loss"}, "has no column test_loss"),
        ({"loss": "best"}, "has no finite best"),
    ],
)
def test_a_setting_that_is_not_there_or_not_one_is_refused(
    changes: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        subtracted(LISTED.model_copy(update=changes), RUNS)


@pytest.mark.parametrize(
    ("seeds", "interval", "side"),
    [
        (3, Interval(-0.2, -0.3, -0.1), "lower"),
        (3, Interval(0.2, 0.1, 0.3), "higher"),
        (3, Interval(0.0, -0.1, 0.1), "neither"),
        (2, Interval(-0.2, -math.inf, math.inf), "neither"),
    ],
)
def test_a_side_is_named_only_where_enough_seeds_show_it(
    seeds: int, interval: Interval, side: str
) -> None:
    assert Found("one", seeds, interval, 0.5).side == side


def test_the_figure_has_a_row_for_each_difference_in_their_order() -> None:
    found = [
        Found("first", 5, Interval(-0.2, -0.3, -0.1), 0.01),
        Found("second", 1, Interval(0.1, -math.inf, math.inf), 1.0),
    ]
    axes = differences_figure(found, "A is better", "B is better").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["first (5)", "second (1)"]
    top, bottom = axes.get_ylim()[::-1]
    assert top < bottom
    assert axes.get_xlim()[1] < 1, "an infinite interval is not drawn"


def test_p_values_are_corrected_for_the_differences_that_can_be_claimed() -> None:
    found = [
        Found("alike", 3, Interval(-0.2, -0.3, -0.1), 0.02),
        Found("two seeds", 2, Interval(0.1, -math.inf, math.inf), 1.0),
        Found("alike", 3, Interval(0.1, 0.09, 0.11), 0.0001),
        Found("neither", 3, Interval(0.0, -0.1, 0.1), 0.99999),
    ]
    table = differences_table(found)
    assert table["p_holm"].tolist() == pytest.approx([0.04, math.nan, 0.0003, 0.99999], nan_ok=True)
    rows = markdown(found, table).splitlines()
    assert rows[0].endswith("| p, corrected for 3 |")
    assert [row.split("|")[-2].strip() for row in rows[2:]] == [".040", "", "<.001", "1.000"]


def test_the_command_writes_the_table_and_the_figure(tmp_path: Path) -> None:
    RUNS.to_csv(tmp_path / "runs.csv", index=False)
    (tmp_path / "list.toml").write_text(
        'lower = "A is better"\nhigher = "B is better"\n[[difference]]\nsetting = "short"\n'
        'runs = "runs.csv"\nloss = "loss"\nwhere = { rounds = 9 }\n'
        'first = { arm = "A" }\nsecond = { arm = "B" }\n'
    )
    main([str(tmp_path / "list.toml"), str(tmp_path / "out")])
    row = pd.read_csv(tmp_path / "out" / "differences.csv").iloc[0]
    assert (row["setting"], row["seeds"], row["estimate"]) == ("short", 3, -0.41667)
    assert "| short | 3 | -0.417 [" in (tmp_path / "out" / "differences.md").read_text()
    assert (tmp_path / "out" / "differences.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_of_the_replication_has_the_table_of_differences() -> None:
    docs = Path(__file__).parents[3] / "docs"
    _, found = found_in(docs / "replication" / "differences.toml")
    assert markdown(found, differences_table(found)) in (docs / "replication.md").read_text()
