"""Pages: verdict first, everything of others as text, panels, themes, no network."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fedsi import Experiment
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from simulations.reports.audit_page import audit_page
from simulations.reports.page import (
    Illustration,
    Page,
    PageTable,
    changed_keys,
    panels_of,
    render,
    themed,
)
from simulations.reports.run import run_page
from simulations.reports.study import study_page, study_report
from tests.simulations.reports.test_lengths import lengths
from tests.simulations.reports.test_study import comparison, sweep
from tests.simulations.reports.test_tradeoff_report import tradeoff
from tests.summaries import AUDIT, PRIVACY, SUMMARY

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
    assert '<td class="words">&lt;i&gt;</td>' in text
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


def dumped_title(place: Path, profile: Path) -> str:
    """Return the title that a file's scripts set in a browser."""
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--window-size=800,900", "--allow-file-access-from-files",
            f"--user-data-dir={profile}", "--virtual-time-budget=20000", place.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stderr
    return html.unescape(title[1])


PHONE = 390
"""Width of a phone in pixels. Chromium's own window is at least 500 wide, so pages are framed."""
PROBE = """<script>
  const box = element => element.getBoundingClientRect();
  const scrolls = [...document.querySelectorAll(".scroll, pre")];
  const wide = scrolls.filter(one => one.scrollWidth > one.clientWidth);
  const panels = [...document.querySelectorAll(".panels")].map(one => [...one.children]);
  const side = panels.flatMap(these => these.slice(1).filter(
    (panel, place) => box(panel).top < box(these[place]).bottom - 1));
  const outside = [...document.querySelectorAll("h1, p, svg, .scroll, pre, button, a, summary")]
    .filter(one => !wide.some(scroll => scroll !== one && scroll.contains(one)))
    .filter(one => box(one).left < 0 || box(one).right > document.documentElement.clientWidth + 1);
  parent.postMessage(JSON.stringify({
    page: document.title, width: innerWidth, content: document.documentElement.scrollWidth,
    tables: document.querySelectorAll("table").length, wide: wide.length,
    cued: wide.filter(one => getComputedStyle(one).overflowX === "auto"
      && getComputedStyle(one).backgroundImage.includes("gradient")).length,
    reached: wide.filter(one => one.tabIndex === 0).length,
    panels: panels.map(these => these.length), side: side.length,
    outside: outside.map(one => one.outerHTML.slice(0, 80)),
  }), "*");
</script></body>"""
SORTING = """<script>
  const [byName, byLoss] = document.querySelectorAll("th button");
  const column = () => [...document.querySelectorAll("tbody td:first-child")]
    .map(cell => cell.textContent).join("");
  byLoss.click(); const up = column(); byLoss.click(); const down = column();
  parent.postMessage(JSON.stringify([up, down, byLoss.parentElement.ariaSort]), "*");
</script></body>"""
FRAMES = """<html><head><title></title></head><body><script>
  const found = {}, names = %s;
  addEventListener("message", event => {
    const name = names.find(one => frames[one] === event.source);
    found[name] = JSON.parse(event.data);
    if (Object.keys(found).length === names.length) document.title = JSON.stringify(found);
  });
  for (const name of names) {
    const frame = document.createElement("iframe");
    frame.style = "width:%dpx;height:800px;border:0";
    frame.src = `${name}.html`;
    document.body.append(frame);
    frames[name] = frame.contentWindow;
  }
</script></body></html>"""


def pages(folder: Path) -> dict[str, Page]:
    """Return a page of each kind, of fabricated results."""
    studies = {"compare": comparison(3), "tradeoff": tradeoff(3), "lengths": lengths(),
               "sweep": sweep()}  # fmt: skip
    found = {
        name: study_page(study_report(result, {}), result, "2025-01-02")
        for name, result in studies.items()
    }
    records = [RoundRecord(n, 5.0, 1, 0, 0, 0, 1, 2.0, epsilon=n / 10, heldout={
        "loss": 7.0 - n, "accuracy_no_oov_no_eos": n / 20, "hits_at_3": 0.1, "recall_at_3": n / 10,
    }) for n in range(3)]  # fmt: skip
    summary = replace(SUMMARY, privacy=replace(PRIVACY, audit=AUDIT))
    experiment = Experiment(privacy={"mechanism": "gaussian", "noise_multiplier": 1.0},
                            server={"sampling": "poisson", "averaging": "uniform"})  # fmt: skip
    counted = studies["compare"].baselines
    found["run"] = run_page(experiment, summary, records, counted, "2025-01-02")
    run = RunFolder(folder / "audited")
    run.claim(experiment, overwrite=False, resume=False)
    scores = np.linspace(-1, 1, 50)
    run.save_canaries(scores, scores**2, scores > 0)
    (run.path / "summary.json").touch()
    found["audit"] = audit_page(run, summary, None)
    return found


@needs_chromium
def test_pages_of_every_kind_fit_a_phone_and_tables_sort(tmp_path: Path) -> None:
    kinds = pages(tmp_path)
    for name, one in kinds.items():
        place = tmp_path / f"{name}.html"
        place.write_text(render(one).replace("</body>", PROBE))
    (tmp_path / "sorting.html").write_text(render(page()).replace("</body>", SORTING))
    (tmp_path / "all.html").write_text(FRAMES % (json.dumps([*kinds, "sorting"]), PHONE))
    found = json.loads(dumped_title(tmp_path / "all.html", tmp_path / "profile"))
    assert found.pop("sorting") == ["ba<i>", "ab<i>", "descending"]
    assert found.keys() == kinds.keys()
    for name, seen in found.items():
        assert seen["page"] == kinds[name].title
        assert seen["width"] == PHONE >= seen["content"], name
        assert seen["outside"] == [], name
        assert seen["tables"] == len(kinds[name].tables)
        assert seen["cued"] == seen["reached"] == seen["wide"], name
        assert seen["panels"] == [len(figure.panels) for figure in kinds[name].figures]
        assert max(seen["panels"]) >= (1 if name == "audit" else 2)
        assert seen["side"] == 0, name
    assert all(found[name]["wide"] for name in ("compare", "tradeoff", "lengths", "sweep"))


def test_columns_of_words_stand_left() -> None:
    rows = [["a", "pass", "1.5", "", "60 of 100"], ["b", "fails", "-2", "\u221e", "a sentence"]]
    table = PageTable("", ["name", "result", "loss", "epsilon", "found"], rows)
    assert table.words == [True, True, False, False, False]
    assert PageTable("", ["name", "found"], [["a", "3 of 4"], ["b", "no"], ["c", "x"]]).words[1]
