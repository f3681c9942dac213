"""The page that every command leaves: one file without network access, light and dark.

It opens with the verdict, which a colleague can read alone; figures, tables, methods and all keys
follow.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from fedsi.experiment import Experiment
from fedsi.files import write_atomically
from simulations.reports.figures import STYLE, any_sign, svg

PAGE = "report.html"

GLOSSARY = {
    "nats": "Unit of loss: the mean of -log(probability) of the words that were to be predicted. "
    "Lower is better; 0.1 nats less means each word became 1.1 times as likely.",
    "unigram, bigram, trigram model": "Models that predict a word from nothing, from the word "
    "before, or from the two words before. A model that does not beat unigram is not useful.",
    "held-out clients": "Clients that were never trained on.",
    "canary": "A made-up client that sends a direction drawn by chance, to see whether what was "
    "released shows that it took part.",
    "epsilon": "The privacy that a run costs each client, at most: smaller is more private.",
    "client learning rate": "The step size of the training on a client.",
}

_COLOURS = {
    "#000000": "currentColor",
    "#ffffff": "none",
    "#e6e6e6": "var(--line)",
    "#666666": "var(--muted)",
    "#333333": "currentColor",
}
"""Colours of figures that follow the page's theme; the others are legible on light and dark."""

_MARGIN_INCHES = 0.06


@dataclass(frozen=True)
class Illustration:
    """A figure, as panels that stand side by side where there is room."""

    panels: Sequence[str]
    """SVG of each panel."""
    caption: str


@dataclass(frozen=True)
class PageTable:
    """A table of texts; readers can sort it by each column."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @property
    def words(self) -> list[bool]:
        """Whether each column has words, which stand left, and not numbers, which stand right."""
        columns = [[row[k] for row in self.rows if row[k]] for k in range(len(self.header))]
        return [2 * sum(map(_is_number, cells)) < len(cells) for cells in columns]


def _is_number(text: str) -> bool:
    return re.match(r"[-+\u2212<>]?[\d.\u221e]", text) is not None


@dataclass(frozen=True)
class Page:
    """The contents of a page, in order."""

    title: str
    kind: str
    """The kind of study or run, as in "Comparison"."""
    date: str
    """The day, as in 2025-03-01."""
    verdict: Sequence[str]
    """Sentences about the comparison, the data, and the certainty of the result."""
    experiment: Experiment | None
    """None for a page that is not about one."""
    figures: Sequence[Illustration] = ()
    tables: Sequence[PageTable] = ()
    details: Sequence[str] = ()
    """Further findings, a sentence each."""
    methods: Sequence[str] = ()
    command: str = ""
    """The command that reproduces it."""
    files: Sequence[str] = ()
    """Names of files beside the page."""
    facts: Sequence[str] = ()
    """The corpus and the versions, a sentence each."""


def write_page(page: Page, folder: Path, name: str = PAGE) -> None:
    """Write a page, by default as ``report.html``."""
    write_atomically(folder / name, render(page).encode())


def day_of(*paths: Path) -> str:
    """Return the day on which the last of some files was written, as in 2025-03-01."""
    return date.fromtimestamp(max(path.stat().st_mtime for path in paths)).isoformat()


def render(page: Page) -> str:
    """Return a page as HTML."""
    environment = Environment(
        loader=PackageLoader("simulations.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        page=page,
        experiment=page.experiment.to_toml() if page.experiment else "",
        changed=changed_keys(page.experiment) if page.experiment else {},
        glossary=GLOSSARY,
    )


def panels_of(figure: Figure) -> list[str]:
    """Return the panels of a figure as SVG, row by row, and its common legend as the last one.

    Each panel is the figure, cut to what belongs to one pair of axes; so a narrow page can show one
    below the other.
    """
    with mpl.rc_context(STYLE), any_sign():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        figure.set_layout_engine("none")  # the layout stays as it was drawn
        renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
        panels = [axes.get_tightbbox(renderer) for axes in figure.axes]
        legends = [legend.get_window_extent(renderer) for legend in figure.legends]
    # A common legend keeps its place in whatever is cut out, so it is drawn in its own cut only.
    return [*_cut(figure, panels, legend=False), *_cut(figure, legends, legend=True)]


def _cut(figure: Figure, parts: Sequence[Bbox | None], *, legend: bool) -> list[str]:
    """Return parts of a figure, in pixels, as SVG that follows the page's theme."""
    for one in figure.legends:
        one.set_visible(legend)
    inches = figure.dpi_scale_trans.inverted()
    cuts = [part.transformed(inches).padded(_MARGIN_INCHES) for part in parts if part is not None]
    images = [svg(figure, cut) for cut in cuts]
    return [themed(image[image.index("<svg") :]) for image in images]


def themed(image: str) -> str:
    """Return an SVG image with the page's colours instead of black, white and greys."""
    return re.sub(
        r"(fill|stroke): (#[0-9a-f]{6})",
        lambda found: f"{found[1]}: {_COLOURS.get(found[2], found[2])}",
        image,
    )


def changed_keys(experiment: Experiment) -> dict[str, str]:
    """Return the keys that differ from the defaults, with their values as in TOML."""
    defaults = Experiment().flat()
    return {
        key: json.dumps(value, ensure_ascii=False)
        for key, value in experiment.flat().items()
        if value != defaults.get(key)
    }
