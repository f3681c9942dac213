"""Reports of a study that sets suggested client learning rates beside the best ones of a sweep."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from fedsi.experiment.experiment import DEPTH_EXPONENT
from fedsi.models.table import architecture
from simulations.reports.figures import STYLE
from simulations.reports.marks import diverged_strips
from simulations.reports.study_words import number, point_words, seeds_text
from simulations.safe_text import for_figure
from simulations.studies.results import GridPoint, StudyResult
from simulations.studies.statistics import FEWEST_SEEDS
from simulations.studies.study import RATE, Combination
from simulations.studies.suggested import place_name

SAME, RULE = "the first best rate", "client.depth_rule"
SUGGESTED, SCALED = "fedsi suggest-lr", "suggest-lr, scaled"
_COLOURS = {SAME: "#333333", RULE: "#b8860b", SUGGESTED: "#1f5fa8", SCALED: "#0a7f6e"}
_MARKS = {SAME: "s", RULE: "^", SUGGESTED: "o", SCALED: "D"}

MEANING = (
    f"{SAME.capitalize()}: that of the first row, for all. {RULE}: that rate times (layers / "
    f"layers of the first row)^{DEPTH_EXPONENT:g}. {SUGGESTED}: as measured before any round. "
    f"{SCALED.capitalize()}: times one factor, so that it is right in the first row. A rate's cost "
    "is the loss at the nearest rate of the sweep minus the loss at the best; a rate that is near "
    "to none has no cost."
)


@dataclass(frozen=True)
class PlaceRates:
    """The rates of an arm at a level."""

    name: str
    layers: int
    """Blocks of its model, 1 for an architecture without any."""
    apart_from_layers: str
    """Its other values, in words."""
    losses: Mapping[float, float]
    """Mean loss on the reported clients by rate of the sweep that was run, after equal rounds;
    infinite if a run diverged."""
    best: float | None
    """The rate chosen on validation clients; None if no setting has a loss."""
    suggested: float
    """Geometric mean over seeds."""

    def nearest(self, rate: float) -> float:
        """Return the rate of the sweep that is nearest in the logarithm."""
        return min(self.losses, key=lambda one: abs(math.log(one / rate)))

    def cost(self, rate: float) -> float:
        """Return what a rate costs against the best, in nats.

        Infinite if it diverges; NaN if it is beyond the sweep by more than half of its widest step.
        """
        assert self.best is not None, "it has a best rate"  # noqa: S101
        rates = sorted(self.losses)
        step = max((high / low for low, high in pairwise(rates)), default=1.0) ** 0.5
        if not rates[0] / step <= rate <= rates[-1] * step:
            return math.nan
        return self.losses[self.nearest(rate)] - self.losses[self.best]


def place_rates(result: StudyResult) -> list[PlaceRates]:
    """Return the rates of every arm at every level that has a best one and a suggestion."""
    found = [_rates(result, place) for place in result.places]
    return [one for one in found if one.best in one.losses and one.suggested > 0]


def _rates(result: StudyResult, place: GridPoint) -> PlaceRates:
    settings, best = result.settings(place), result.chosen(place)
    run = [one for one in result.of_equal_rounds.settings(place) if one.results]
    experiment = result.study.trial(settings[0].points, result.study.experiment.seed).experiment
    has_layers = "layers" in architecture(experiment.model.architecture).keys
    rates = result.suggested.get(place_name(result.study, settings[0].points), ())
    points = (*place.arm, *place.level)
    return PlaceRates(
        apart_from_layers=", ".join(point_words(p) for p in points if p.axis != "model.layers"),
        name=", ".join(map(point_words, points)) or "the experiment",
        layers=experiment.model.layers if has_layers else 1,
        losses={_rate(s.points): s.mean("loss", result.part) for s in run},
        best=_rate(best.points) if best else None,
        suggested=math.exp(fmean(map(math.log, rates))) if rates else 0.0,
    )


def _rate(points: Combination) -> float:
    return next(float(point.value) for point in points if point.axis == RATE)


def rules(places: Sequence[PlaceRates]) -> dict[str, list[float]]:
    """Return the rate of each rule at each place; those with a factor are right at the first."""
    first = places[0]
    assert first.best is not None, "only places with one are kept"  # noqa: S101
    best, depth = first.best, first.layers
    return {
        SAME: [best for _ in places],
        RULE: [best * (one.layers / depth) ** DEPTH_EXPONENT for one in places],
        SUGGESTED: [one.suggested for one in places],
        SCALED: [best * one.suggested / first.suggested for one in places],
    }


def rates_table(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table of rates and their costs, as text."""
    places = place_rates(result)
    header = ["", "best rate", "its loss", *rules(places)] if places else [""]
    columns = rules(places).values() if places else ()
    rows = [
        [
            one.name,
            number(one.best or 0),
            f"{one.losses[one.best or 0]:.3f}",
            *(f"{number(rates[row])} ({_cost(one.cost(rates[row]))})" for rates in columns),
        ]
        for row, one in enumerate(places)
    ]
    return header, rows


def _cost(cost: float) -> str:
    if math.isnan(cost):
        return "beyond the sweep"
    return f"{cost:+.3f}" if math.isfinite(cost) else "diverged"


def rates_verdicts(result: StudyResult) -> list[str]:
    """Return what each rule costs, and how rates fall with depth."""
    places = place_rates(result)
    if len(places) < 2:
        return ["No two combinations have a loss, so no rule can be judged."]
    beyond = "it" if result.seeds == 1 else "them"
    few = f" {seeds_text(result.seeds)}: no claim beyond {beyond}."
    told = [
        f"Cost of {name}: {_costs(places, rates, name)}." for name, rates in rules(places).items()
    ]
    claim = told[-1] if result.seeds >= FEWEST_SEEDS else told[-1] + few
    return [*told[:-1], claim, *_slopes(places)]


def _costs(places: Sequence[PlaceRates], rates: Sequence[float], name: str) -> str:
    """Describe the costs of a rule at the places that it was not set by."""
    first = 0 if name == SUGGESTED else 1
    costs = [one.cost(rate) for one, rate in zip(places, rates, strict=True)][first:]
    known = [cost for cost in costs if math.isfinite(cost)]
    lost, beyond = sum(map(math.isinf, costs)), sum(map(math.isnan, costs))
    told = [f"{fmean(known):.3f} nats on average and {max(known):.3f} at most"] if known else []
    told += [f"it diverges in {lost} of {len(costs)}"] if lost else []
    told += [f"{beyond} of {len(costs)} rates are beyond the sweep"] if beyond else []
    return ", ".join(told)


def _slopes(places: Sequence[PlaceRates]) -> list[str]:
    """Describe how the rates fall with depth; nothing if depths do not vary by themselves."""
    depths: dict[str, set[int]] = {}
    for one in places:
        depths.setdefault(one.apart_from_layers, set()).add(one.layers)
    if all(len(layers) < 2 for layers in depths.values()):
        return []
    best = _slope(places, [one.best or 0.0 for one in places])
    given = _slope(places, [one.suggested for one in places])
    return [
        f"Over depth, the best rate goes as depth^{best:.2f} and the suggestion as depth^"
        f"{given:.2f}; client.depth_rule is depth^{DEPTH_EXPONENT:g}."
    ]


def _slope(places: Sequence[PlaceRates], rates: Sequence[float]) -> float:
    """Return the slope of log rate over log depth, with a level for each other combination."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for one, rate in zip(places, rates, strict=True):
        groups.setdefault(one.apart_from_layers, []).append((math.log(one.layers), math.log(rate)))
    centred = np.concatenate([np.array(g) - np.mean(g, axis=0) for g in groups.values()])
    return float(centred[:, 0] @ centred[:, 1] / (centred[:, 0] @ centred[:, 0]))


def rates_figure(result: StudyResult) -> Figure:
    """Draw the rates of the rules beside the best ones, and what they cost."""
    places = place_rates(result)
    spots = list(range(len(places)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 5.0), layout="constrained")
        of_rates, of_costs = figure.subplots(1, 2)
        of_rates.set(yscale="log", ylabel="client learning rate", title="Rates")
        of_costs.set(ylabel="loss above that of the best rate (nats)", title="What they cost")
        best = [one.best or math.nan for one in places]
        of_rates.plot(spots, best, "_", color="#c8500a", ms=18, mew=3, label="best of the sweep")
        diverged: dict[str, list[float]] = {}
        for name, rates in (rules(places) if places else {}).items():
            style = {"color": _COLOURS[name], "marker": _MARKS[name], "ms": 5, "lw": 0.8}
            of_rates.plot(spots, rates, label=name, **style)
            costs = [one.cost(rate) for one, rate in zip(places, rates, strict=True)]
            finite = [cost if math.isfinite(cost) else math.nan for cost in costs]
            of_costs.plot(spots, finite, label=name, **style)
            diverged[_COLOURS[name]] = [s for s in spots if math.isinf(costs[s])]
        diverged_strips(of_costs, diverged)
        for axes in (of_rates, of_costs):
            names = [for_figure(one.name) for one in places]
            axes.set_xticks(spots, names, rotation=40, ha="right", rotation_mode="anchor")
        handles, labels = of_rates.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


RATES_CAPTION = (
    "Client learning rates by combination (left), and the loss at the nearest rate of the sweep "
    "above that at the best one (right; nothing for a rate beyond the sweep). A cross in the "
    "coloured strip marks a rate that diverged."
)
