"""Feed-forward parts for one token, as after each key: microseconds, bytes read, and agreement.

Weights are a model's initial ones and inputs are normally distributed, so that the share of active
groups is the one that was asked for; a trained router's may differ. A mixture divides the neurons
of the dense part among its experts, of which a token uses one. Parts take turns, in CPU time
of one thread, so other load does not distort their ratios much. Each part works on its own copies
of the weights in turn, at least ``CACHE`` bytes in all, because in a model of several blocks, and
with an output layer, a part's weights are not in the processor's cache when they are needed.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fedsi.data.corpus import Progress
from fedsi.experiment import Experiment, ModelSettings
from fedsi.models.feedforward.table import FEEDFORWARDS, GROUP, function_of, part_of
from fedsi.models.parameters import Parameters
from fedsi.threads import torch_threads
from simulations.benchmarks.report import Measurements
from simulations.reports.figures import STYLE

REPEATS = 7
EXPERTS = (4, 16)
"""Numbers of experts of the mixtures."""
_TIMED = 64
"""Tokens of a repeat."""
CACHE = 48_000_000
_LARGEST_COPIES = 64


@dataclass(frozen=True)
class PartTime:
    """One kind of part at one size."""

    size: int
    """Size of the stream."""
    inner: int
    """Neurons."""
    part: str
    active: float
    """Share of the neurons that a token uses, measured."""
    megabytes: float
    """Bytes of the parameters that a token needs, on average."""
    difference: float
    """Largest difference to the slow function of all neurons, over the largest value."""
    microseconds: float
    """Median over repeats."""
    speed: float
    """Time of the dense part over this one's, median over repeats."""


def measure_feedforward(
    sizes: Sequence[tuple[int, int]], shares: Sequence[float], tell: Progress
) -> list[PartTime]:
    """Measure the parts for one token.

    Args:
        sizes: Sizes of the stream and numbers of neurons.
        shares: Shares of active groups, of ``top_k``.
        tell: Called to report progress.

    Raises:
        UserError: A size or share has no meaning.
    """
    found: list[PartTime] = []
    with torch_threads(1), torch.inference_mode():
        for size, inner in sizes:
            tell(f"feed-forward parts of {size} x {inner}", len(found), 0)
            found += _at_size(inner, _kinds(size, inner, shares))
    return found


def _kinds(size: int, inner: int, shares: Sequence[float]) -> dict[str, ModelSettings]:
    """Return the parts by what a token chooses, the dense one first."""
    found = {"": _settings(size, inner)}
    for share in shares:
        chosen = {"feedforward": "top_k", "active_share": share}
        found[f", {share:g} of groups of {GROUP}"] = _settings(size, inner, **chosen)
    for experts in EXPERTS:
        mixture = {"feedforward": "moe", "experts": experts}
        found[f", 1 of {experts}"] = _settings(size, inner // experts, **mixture)
    return found


def _settings(size: int, inner: int, **changes: Any) -> ModelSettings:
    own = {"embedding_size": size, "heads": 1, "feedforward_size": inner, **changes}
    return Experiment(model={"architecture": "transformer", **own}).model


def _at_size(inner: int, kinds: Mapping[str, ModelSettings]) -> list[PartTime]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(_TIMED, 1, 1, kinds[""].embedding_size, generator=generator)
    drawn = {choice: _copies(settings, generator) for choice, settings in kinds.items()}
    calls = [_call(settings, drawn[choice]) for choice, settings in kinds.items()]
    times: list[list[float]] = [[] for _ in kinds]
    for _ in range(REPEATS + 1):
        for call, taken in zip(calls, times, strict=True):
            began = time.thread_time()
            for number, token in enumerate(tokens):
                call(number, token)
            taken.append(1e6 * (time.thread_time() - began) / _TIMED)
    full = times[0][1:]  # the first repeat is to warm up
    return [
        PartTime(
            size=settings.embedding_size,
            inner=inner,
            part=FEEDFORWARDS[settings.feedforward].label + choice,
            **_facts(settings, drawn[choice][0], tokens),
            microseconds=statistics.median(taken[1:]),
            speed=statistics.median(a / b for a, b in zip(full, taken[1:], strict=True)),
        )
        for (choice, settings), taken in zip(kinds.items(), times, strict=True)
    ]


def _copies(settings: ModelSettings, generator: torch.Generator) -> list[Parameters]:
    shapes = part_of(settings).shapes(settings)
    own = {
        name: torch.randn(shape, generator=generator) * (2 / sum(shape)) ** 0.5
        for name, shape in shapes.items()
    }
    size = 4 * sum(one.numel() for one in own.values())
    number = min(max(CACHE // size, 1), _LARGEST_COPIES)
    return [own, *({name: one.clone() for name, one in own.items()} for _ in range(number - 1))]


def _call(settings: ModelSettings, copies: Sequence[Parameters]) -> Callable[[int, Tensor], Tensor]:
    function = function_of(settings, one=True)
    return lambda number, token: function(settings, copies[number % len(copies)], token)


def _facts(settings: ModelSettings, own: Parameters, tokens: Tensor) -> dict[str, Any]:
    part, share = part_of(settings), 1.0
    read = sum(one.numel() for one in own.values())
    if part.choices is not None:
        share = float(part.choices(settings, own, tokens).float().mean())
        rest = own["inner"].numel() + own["outer"].numel()
        read = own["router"].numel() + round(share * rest)
    function = function_of(settings, one=True)
    slow = torch.cat([part.run(settings, own, token) for token in tokens])
    fast = torch.cat([function(settings, own, token) for token in tokens])
    return {
        "active": share,
        "megabytes": 4 * read / 1e6,
        "difference": float((fast - slow).abs().max() / slow.abs().max()),
    }


def feedforward_report(measured: Sequence[PartTime]) -> Measurements:
    """Return the table and the figure."""
    header = ("size", "part", "active", "MB read", "microseconds", "times as fast")
    return Measurements(
        name="feedforward",
        rows=[asdict(one) for one in measured],
        header=header,
        table=[
            (
                f"{one.size} x {one.inner:,}",
                one.part,
                f"{one.active:.1%}",
                f"{one.megabytes:.2f}",
                f"{one.microseconds:.0f}",
                f"{one.speed:.1f}",
            )
            for one in measured
        ],
        note=f"One token, one thread, untrained weights, median of {REPEATS} repeats",
        figure=_figure(measured),
    )


def _figure(measured: Sequence[PartTime]) -> Figure:
    sizes = list(dict.fromkeys((one.size, one.inner) for one in measured))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        for part in dict.fromkeys(one.part for one in measured):
            times = [one.microseconds for one in measured if one.part == part]
            axes.plot(range(len(sizes)), times, marker="o", label=part)
        axes.set_xticks(range(len(sizes)), [f"{size} x {inner:,}" for size, inner in sizes])
        axes.set(yscale="log", ylabel="microseconds", title="A feed-forward part, one token")
        axes.legend(fontsize="small")
    return figure
