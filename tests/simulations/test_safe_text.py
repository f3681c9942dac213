"""Words, names and paths from others are shown as plain text everywhere."""

import csv
import json
import logging
import shlex
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure

from simulations.cli.main import main
from simulations.cli.options import PlainConsole
from simulations.safe_text import (
    PlainFormatter,
    for_figure,
    for_markdown,
    for_spreadsheet,
    typed,
    visible,
)

NASTY = "[/b] <script>alert(1)</script> =cmd [bold] \x1b[31mred\x1b[0m \x07 \u202ecod $x_1$ :smile:"
CORPUS = "=cmd[bold]$x_1$\x1b[31m<script>.jsonl"
OUT = "a[/b]\x1b[31m$y$"
SETS = {
    "server.rounds": 1,
    "server.cohort_size": 2,
    "server.evaluate_every": 1,
    "client.max_steps": 2,
    "data.words": "spaces",
    "data.heldout_by": "clients",
    "data.heldout_fraction": 0.3,
    "data.corpus": CORPUS,
}


@pytest.fixture
def nasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings for a corpus of nasty words, users and name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    rows = [
        {"user": f"{user} {k}", "text": f"hello {NASTY} world"}
        for user in ("<script>", "=cmd|'/c calc'!A1", "[/b]\x1b[31m")
        for k in range(6)
    ]
    Path(CORPUS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [word for key, value in SETS.items() for word in ("--set", f"{key}={value}")]


def test_every_command_shows_them_as_they_are(
    nasty: list[str], cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = f"{OUT}/run"
    cached = ["--cache", str(cache)]
    small = ["--preset", "smoke", *nasty, *cached]
    rates = ["--architectures", "si_cifg", "--client-learning-rates", "1", "--jobs", "1"]
    described = ["data", "describe", CORPUS, *nasty[:-2], *cached, "--out", f"{OUT}/d"]
    for command, expected in (
        (["run", *small, "--out", run], 0),
        (["compare", *small, *rates, "--out", f"{OUT}/study"], 0),
        (["predict", run, f"hello {NASTY}", "--top", "12"], 0),
        (["generate", run, "--prompt", NASTY], 0),
        (["evaluate", run, *cached, "--lengths", "8"], 0),
        (described, 0),
        (["run", "--preset", "smoke", "--set", f"data.corpus={NASTY}"], 2),
        (["run", "--preset", "smoke", "--set", f"{NASTY}=1"], 2),
        (["predict", NASTY, "hello"], 2),
    ):
        code = main(command)
        shown = "".join(capfd.readouterr())
        assert code == expected, shown
        assert "Traceback" not in shown
        assert not set(shown) & set("\x1b\x07\u202e"), shown
        if command[0] != "evaluate":
            assert "[bold]" in shown or "[/b]" in shown
        if command[0] == "predict" and not expected:
            words = NASTY.replace("\u202e", "").split()  # a mark of direction is not part of a word
            assert all(visible(word) in shown for word in words), shown
    page = Path(OUT, "study", "report.html").read_text()
    assert page.count("<script>") == 1  # the one that sorts tables
    assert "&lt;script&gt;" in page
    table = Path(OUT, "study", "comparison.csv").read_text()
    (row,) = csv.DictReader(table.splitlines())
    assert row["corpus"] == f"'{CORPUS}"
    assert float(row["heldout_loss"]) > 0


def test_a_table_and_a_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    PlainConsole(stderr=True).print("[/b] \x1b[31m :smile: \udcff", soft_wrap=True)
    assert capsys.readouterr().err == "[/b] \\x1b[31m :smile: \\udcff\n"
    record = logging.LogRecord("", logging.INFO, "", 1, "a\x1b[31m\nb", None, None)
    assert PlainFormatter().format(record) == "a\\x1b[31m\nb"


def test_what_begins_like_a_formula_is_text_and_numbers_stay_numbers() -> None:
    table = pd.DataFrame({"name": ["=1+1", "-x", "a=1"], "number": [-1.5, 2, 3]})
    assert table.map(for_spreadsheet).to_csv(index=False).split() == [
        "name,number", "'=1+1,-1.5", "'-x,2.0", "a=1,3.0",
    ]  # fmt: skip


def test_markdown() -> None:
    assert for_markdown("a|b\n[c](d) <e> `f`") == r"a\|b\\n\[c](d) \<e> \`f\`"


@pytest.mark.parametrize("name", ["$x_1$", r"a\$", "$", r"\frac{", "_hidden"])
def test_a_figure_draws_dollars(name: str) -> None:
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure = Figure()
        text = figure.suptitle(for_figure(name))
        shown, is_formula = text._preprocess_math(text.get_text())  # type: ignore[attr-defined]
        assert (shown.lstrip(" "), bool(is_formula)) == (name, False)
        axes = figure.subplots()
        axes.plot([1], label=for_figure(name))
        assert axes.get_legend_handles_labels()[1] == [for_figure(name)]


@pytest.mark.parametrize("name", ["run", "my run", "-run", "it's", "ü", "a\nb"])
def test_a_typed_path_is_one_word_of_a_shell(name: str) -> None:
    (word,) = shlex.split(typed(Path(name)))
    assert not word.startswith("-")
    assert Path(word) == Path(name.replace("\n", "\\n"))
