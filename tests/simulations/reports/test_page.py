"""Pages: verdict first, everything of others as text, panels, themes, no network."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fedsi import Experiment
from simulations.reports.page import (
    Illustration,
    Page,
    PageTable,
    changed_keys,
    panels_of,
    render,
    themed,
    write_page,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium (on Debian: apt install chromium)"
)


def figure() -> Figure:
    drawn = Figure(figsize=(8, 3), layout="constrained")
    left, right = drawn.subplots(1, 2)
    left.plot([1, 2], [3, 1], label="one")
    right.plot([1, 2], [1, 3], color="#0a7f6e")
    left.set_title("LEFT")
    drawn.legend(loc="outside lower center")
    return drawn


def page(**changes: object) -> Page:
    fields = {
        "title": "A <b>title</b>",
        "kind": "Study",
        "date": "2025-01-02",
        "verdict": ["The verdict comes first."],
        "experiment": Experiment(server={"rounds": 7}),
        "figures": [Illustration(panels_of(figure()), "A caption")],
        "tables": [
            PageTable(
                "Runs", ["name", "loss"], [["b", "5.2"], ["a", "10.1"], ["<i>", "-"]], "A note"
            )
        ],
        "details": ["A detail."],
        "methods": ["A method."],
        "command": "fedsi run && echo done",
        "files": ["a.csv"],
    }
    return Page(**{**fields, **changes})  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Collects tags, and fails on one that is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_verdict_comes_before_figures_tables_and_methods() -> None:
    text = render(page())
    order = ["The verdict comes first.", "<svg", "<table", "A detail.", "A method.", "a.csv"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []


def test_texts_of_others_are_text_and_nothing_is_fetched() -> None:
    text = render(page())
    assert "A &lt;b&gt;title&lt;/b&gt;" in text
    assert "<td>&lt;i&gt;</td>" in text
    assert "fedsi run &amp;&amp; echo done" in text
    reader = Reader()
    reader.feed(text)
    addresses = [a.get("src") or a.get("href") or "" for tag, a in reader.tags if tag != "use"]
    assert [one for one in addresses if one and not one.startswith("#")] == ["a.csv"]
    assert not re.search(r"@import|url\((?!#)", text)


def test_keys_that_differ_are_shown_and_the_rest_is_folded() -> None:
    assert changed_keys(Experiment(server={"rounds": 7})) == {"server.rounds": "7"}
    text = render(page())
    assert "server.rounds = 7" in text
    assert text.index("<details>") < text.index("cohort_size")
    assert "Every key has its default value." in render(page(experiment=Experiment()))


def test_panels_are_the_axes_and_the_common_legend() -> None:
    left, right, legend = panels_of(figure())
    widths = [float(re.search(r'width="([0-9.]+)pt"', part)[1]) for part in (left, right, legend)]  # type: ignore[index]
    assert widths[0] < 0.6 * 8 * 72
    assert widths[1] < 0.6 * 8 * 72
    assert "legend_1" in legend
    assert "legend_1" not in left + right


def test_black_white_and_greys_follow_the_theme_and_colours_stay() -> None:
    assert themed("fill: #000000; stroke: #ffffff") == "fill: currentColor; stroke: none"
    assert themed("stroke: #0a7f6e") == "stroke: #0a7f6e"


@needs_chromium
def test_a_browser_sorts_tables_and_nothing_overflows_a_phone(tmp_path: Path) -> None:
    write_page(page(), tmp_path)
    script = """<script>
      const [byName, byLoss] = document.querySelectorAll("th button");
      const column = () => [...document.querySelectorAll("tbody td:first-child")]
        .map(cell => cell.textContent).join("");
      byLoss.click(); const up = column(); byLoss.click(); const down = column();
      const wide = document.body.scrollWidth > window.innerWidth;
      document.title = `${up} ${down} ${byLoss.parentElement.ariaSort} ${wide}`;
    </script></body>"""
    place = tmp_path / "report.html"
    place.write_text(place.read_text().replace("</body>", script))
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--window-size=500,900", f"--user-data-dir={tmp_path / 'profile'}", place.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stderr
    assert title[1] == "ba&lt;i&gt; ab&lt;i&gt; descending false"
