"""Tables of many columns in a terminal of 80 characters."""

import io

import pytest
from rich.console import Console

from simulations.cli.wide_table import column_parts, print_table
from simulations.reports.study import study_report
from tests.simulations.reports.test_study import comparison, tradeoff


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_word_of_a_studys_table_is_cut(width: int) -> None:
    for result in (tradeoff(3), comparison(3)):
        report = study_report(result, {})
        text = io.StringIO()
        console = Console(file=text, width=width)
        print_table(console, report.table_title, report.header, report.rows, report.named)
        printed = text.getvalue()
        assert max(map(len, printed.splitlines())) <= width
        for cell in (*report.rows[0], *report.rows[-1]):
            assert cell in printed
        for word in " ".join(report.header).split():
            assert word in printed, f"{word} is cut"


def test_each_part_repeats_what_names_a_row() -> None:
    header, rows = ["name", *"abcdefgh"], [["x" * 20, *["1" * 10] * 8]]
    parts = column_parts(header, rows, 1, 80)
    assert [part[0] for part in parts] == [0] * len(parts)
    assert [column for part in parts for column in part[1:]] == list(range(1, 9))
    assert column_parts(header, rows, 1, 1000) == [list(range(9))]
    assert len(column_parts(header, rows, 1, 10)) == 8, "one column at least"
