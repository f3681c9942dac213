"""Tables of many columns in a terminal of 80 characters."""

import ast
import importlib
import io
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from fedsi.plan import Plan
from fedsi.privacy.alternatives import Alternative
from simulations import cli
from simulations.benchmarks.report import Measurements
from simulations.cli import options, privacy_comparison, wide_table
from simulations.cli.bench import shared
from simulations.cli.main import main
from simulations.cli.wide_table import column_parts, print_facts, print_table
from simulations.reports.study import study_report
from tests.simulations.reports.test_study import comparison
from tests.simulations.reports.test_tradeoff_report import tradeoff

ROOT = Path(__file__).parents[3]
WIDTH = 80


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
    least = [23, *[13] * 8]
    parts = column_parts(least, 1, 80)
    assert [part[0] for part in parts] == [0] * len(parts)
    assert [column for part in parts for column in part[1:]] == list(range(1, 9))
    assert column_parts(least, 1, 1000) == [list(range(9))]
    assert len(column_parts(least, 1, 10)) == 8, "one column at least"


def test_a_part_in_which_no_row_has_anything_is_left_out() -> None:
    text = io.StringIO()
    header, rows = ["name", *["values"] * 3, ""], [["row", *["1" * 20] * 3, ""]]
    print_table(Console(file=text, width=42), "Title", header, rows)
    assert text.getvalue().count("┏") == text.getvalue().count("row") == 3


def test_prose_is_wrapped_between_words_and_numbers_are_not_broken() -> None:
    header = ["name", "meaning", "share of all"]
    rows = [["a", "words " * 40, "0.123456789"], ["b", "x" * 300, "1"], ["日本" * 5, "", ""]]
    text = io.StringIO()
    print_table(Console(file=text, width=60), "Title", header, rows, prose=["meaning"])
    printed = text.getvalue()
    assert max(map(len, printed.splitlines())) <= 60
    assert printed.count("words") == 40
    assert printed.count("x") == 300
    assert "0.123456789" in printed
    assert "日本" * 5 in printed


# Every table of every command, in a terminal of 80 columns.


def test_no_other_module_draws_a_table() -> None:
    """So the tests of this module are about all tables."""
    drawing = set()
    for path in ROOT.glob("*/**/*.py"):
        if path.relative_to(ROOT).parts[0] not in {"fedsi", "server", "clients", "simulations"}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "rich.table":
                drawing.add(path.name)
    assert drawing == {"wide_table.py"}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """Note what is drawn in a terminal of 80 columns: header, rows and names of prose columns."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    found: list[tuple[Any, ...]] = []

    def table(
        console: Console, title: str, header: Sequence[str], rows: Any, *more: Any, **named: Any
    ) -> None:
        found.append((header, rows, named.get("prose", ())))
        print_table(console, title, header, rows, *more, **named)

    def facts(console: Console, title: str, given: Mapping[str, str]) -> None:
        found.append(((), [(label, "") for label in given], ()))
        print_facts(console, title, given)

    for one in pkgutil.iter_modules(cli.__path__, f"{cli.__name__}."):
        module = importlib.import_module(one.name)
        for called, spy in (("print_table", table), ("print_facts", facts)):
            if hasattr(module, called) and module is not wide_table:
                monkeypatch.setattr(module, called, spy)
    yield found
    assert found


def assert_whole(tables: list[tuple[Any, ...]], printed: str) -> None:
    """No line is too long, no word of a header is broken, and no value that is not prose."""
    assert "\u2026" not in printed
    assert max(map(len, printed.splitlines())) <= WIDTH
    for header, rows, prose in tables:
        for word in " ".join(header).split():
            assert word in printed, f"{word} is cut"
        for row in rows:
            for name, cell in zip(header or ("", ""), row, strict=True):
                assert name in prose or cell in printed, f"{cell} is cut"


PLAN = "--mechanism tree --sampling shuffled --rounds 20 --population 2000 --cohort-size 10"


@pytest.mark.parametrize("command", ["presets", "keys server", "keys privacy", f"privacy {PLAN}"])
def test_tables_without_a_run(
    command: str, tables: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 0
    assert_whole(tables, capsys.readouterr().out)


def test_tables_of_ways_to_make_noise(
    tables: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan("gaussian", "poisson", 10**6, 5000, 2000, 1.234, 1e-10)
    names = ("every client with probability 0.005", "BLT with 4 buffers", "tree", "banded")
    found = [Alternative(name, plan, 2.0, 123.4567) for name in names]
    privacy_comparison._print(options.output(), found, found, 2.0)
    assert_whole(tables, capsys.readouterr().out)


def test_tables_of_data_and_of_an_audited_run(
    tables: list[tuple[Any, ...]],
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = {
        "server.rounds": 1, "server.sampling": "poisson", "server.averaging": "uniform",
        "privacy.mechanism": "gaussian", "privacy.noise_multiplier": 1, "privacy.canaries": 50,
        "personalisation.epochs": 1,
    }  # fmt: skip
    keys = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    run, place = str(tmp_path / "run"), ["--cache", str(cache)]
    for command in (
        ["run", "--preset", "smoke", *keys, "--verbose", "--out", run],
        ["evaluate", run, "--lengths", "12,24"],
        ["data", "describe", "synthetic", "--set", "data.population=60"],
        ["audit", run],
    ):
        assert main([*command, *place]) == 0
    assert main(["predict", run, "word1"]) == 0
    assert_whole(tables, capsys.readouterr().out)


def test_tables_of_benchmarks(
    tables: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["parameters", "Flower's simulation, clients/s", "fedsi, clients/s", "ratio",
             "largest difference", "peak memory in MiB", "s to start"]  # fmt: skip
    rows = [["3,500,000", "1,234.5", "12,345.6", "10.0", "1.2e-07", "12,345", "123.4"]]
    report = Measurements("peers", [{"a": 1}], names, rows, "Two rounds of 20 clients", Figure())
    shared.write(report, [], tmp_path, as_json=False)
    shared.show({"train_seconds": 12.5, "draw_milliseconds": {"uniform": 1.5}}, as_json=False)
    printed = capsys.readouterr().out
    assert "Two rounds of 20 clients" in printed
    assert_whole(tables, printed)
