"""Output layers on a trained model: whose words are those of the exact layer, and how fast.

Layers are asked for each of some held-out positions of the run, one state at a time. Times are CPU
microseconds of one thread, except in parts, where they are those of the clock; layers take turns,
so other load does not distort their ratios.

Larger sizes are constructed from the trained matrix, because random weights have no spectrum to
exploit. Further words are ``mean + sqrt(1/2) ((w_a - mean) + (w_b - mean))`` for two trained words
a and b drawn by chance, with the mean of their biases less the log of the growth of the vocabulary.
Further columns repeat the trained ones for shuffled words and shuffled states at half the size.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from fedsi.data.corpus import Progress
from fedsi.data.population import Population
from fedsi.data.protocol import FIRST_WORD
from fedsi.inference.reading import TrainedModel
from fedsi.inference.top_k.calibration import own_states
from fedsi.inference.top_k.layer import Array, Choice, OutputRows, TopK, rows_of
from fedsi.inference.top_k.parts import InParts
from fedsi.inference.top_k.suggestions import start_typing, type_on
from fedsi.inference.top_k.table import OUTPUT_LAYERS
from fedsi.tasks.table import task_of
from fedsi.threads import torch_threads
from server.rounds import evaluated_clients
from simulations.benchmarks.machine import BenchmarkError
from simulations.benchmarks.report import Measurements
from simulations.finished_run import FinishedRun
from simulations.reports.figures import STYLE

WORDS = 3
"""Words that a keyboard shows."""
PAYS = 4e6
"""Bytes of an exact layer below which the others hardly pay: it fits into the processor's cache."""
REPEATS = 7
_TIMED = 40
"""States of a repeat."""
_DRAWN = 0
"""Seed of the constructed words."""


@dataclass(frozen=True)
class Keystroke:
    """One layer at one size."""

    words: int
    size: int
    layer: str
    megabytes: float
    """Bytes that every call reads."""
    rank: int | None
    """Numbers of a row that give its cheap score; None for all."""
    positions: int
    recall: float
    """Share of the exact layer's words that are among the candidates, and so are returned."""
    agreement: float
    """Share of positions at which all words and their order are those of the exact layer."""
    rescored: float
    """Mean number of rows scored exactly after the cheap scores."""
    fallen_back: float
    """Share of positions at which all rows were scored."""
    microseconds: float
    """Median over repeats."""
    speed: float
    """Time of the exact layer over this layer's, median over repeats. The exact layer is the faster
    one of fedsi's and PyTorch's."""
    step: float
    """Microseconds of the model's step from one word to the next, before the output layer."""


def heldout_states(run: FinishedRun, population: Population, most: int) -> Array:
    """Return the output layer's inputs at held-out positions, float32 ``[most, size]``.

    Only positions with a target count. Clients are taken in the order of the run's evaluation.

    Raises:
        BenchmarkError: There is no position.
    """
    model, parameters = run.trained.model, run.trained.parameters
    found, number, task = [], 0, task_of(run.experiment)
    for client in evaluated_clients(run.experiment, population.description).tolist():
        batch = task.batch(population.examples(client))
        with torch.inference_mode():
            features = model.features(parameters, torch.from_numpy(batch.inputs).long())
            inputs = model.output_inputs(parameters, features)
        if inputs is None or number >= most:
            break
        found.append(inputs[torch.from_numpy(batch.asked)].numpy())
        number += len(found[-1])
    if not number:
        raise BenchmarkError(f"{run.path} has no held-out position; evaluate more clients")
    return np.ascontiguousarray(np.concatenate(found)[:most], np.float32)


def constructed(
    rows: OutputRows, words: int, size: int, states: Sequence[Array]
) -> tuple[OutputRows, list[Array]]:
    """Return rows and states of a larger size; see the module's docstring.

    Args:
        rows: The trained rows.
        words: Rows wanted, at least as many.
        size: Columns wanted, at least as many.
        states: Arrays of states, ``[states, size]``.
    """
    rng = np.random.default_rng(_DRAWN)
    own, more = len(rows), words - len(rows)
    pairs = rng.integers(FIRST_WORD, own, (2, more))
    mean = rows.weight[FIRST_WORD:].mean(axis=0)
    mixed = mean + np.sqrt(0.5) * (rows.weight[pairs] - mean).sum(axis=0)
    biases = rows.bias[pairs].mean(axis=0) - np.log(words / own)
    weight = np.concatenate([rows.weight, mixed])
    wide, wider = [weight], [[one] for one in states]
    while sum(part.shape[1] for part in wide) < size:
        factor = 0.5 ** len(wide)
        wide.append(factor * weight[rng.permutation(words)])
        for parts, one in zip(wider, states, strict=True):
            parts.append(factor * one[rng.permutation(len(one))])

    def cut(parts: list[Array]) -> Array:
        return np.ascontiguousarray(np.concatenate(parts, axis=1)[:, :size], np.float32)

    bias = np.concatenate([rows.bias, biases]).astype(np.float32)
    return OutputRows(cut(wide), bias), [cut(parts) for parts in wider]


class _Torch:
    """PyTorch's product of the matrix and a state, and its selection."""

    def __init__(self, rows: OutputRows) -> None:
        self._weight, self._bias = torch.from_numpy(rows.weight), torch.from_numpy(rows.bias)

    def ask(self, state: Array) -> None:
        scores = torch.addmv(self._bias, self._weight, torch.from_numpy(state))
        scores[FIRST_WORD:].topk(min(WORDS, len(scores) - FIRST_WORD))


def measure_keystroke(
    run: FinishedRun,
    population: Population,
    sizes: Sequence[tuple[int, int]],
    positions: int,
    parts: int,
    tell: Progress,
) -> list[Keystroke]:
    """Measure all output layers on a run, and at some larger sizes.

    Args:
        run: The run.
        population: Its population.
        sizes: Words and size of each construction, beside those of the run.
        positions: Held-out positions.
        parts: If above 1, the exact layer and that of low rank are also measured in so many parts,
            each on a thread.
        tell: Called to report progress.

    Raises:
        UserError: The model has no output layer that could be replaced.
        BenchmarkError: A size is below that of the run.
    """
    rows = rows_of(run.trained)
    small = [size for size in sizes if size[0] < len(rows) or size[1] < rows.size]
    if small:
        raise BenchmarkError(
            "{} x {} is smaller than the run's output layer of {} x {}; name a larger size".format(
                *small[0], len(rows), rows.size
            )
        )
    with torch_threads(1):
        asked, own = heldout_states(run, population, positions), own_states(run.trained)
        step = _step(run.trained)
        found: list[Keystroke] = []
        for words, size in dict.fromkeys([(len(rows), rows.size), *sizes]):
            at_size, (states, calibration) = constructed(rows, words, size, [asked, own])
            tell(f"output layers of {words:,} x {size}", len(found), 0)
            found += _at_size(at_size, states, calibration, parts, step)
    return found


def _step(trained: TrainedModel) -> float:
    """Return the microseconds of a step from one word to the next."""
    typed = start_typing(trained)
    return _fastest(lambda: type_on(trained, typed, [FIRST_WORD]), time.thread_time)


def _fastest(call: Callable[[], object], clock: Callable[[], float]) -> float:
    call()
    taken = []
    for _ in range(REPEATS):
        began = clock()
        for _ in range(_TIMED):
            call()
        taken.append(1e6 * (clock() - began) / _TIMED)
    return statistics.median(taken)


def _at_size(
    rows: OutputRows, states: Array, calibration: Array, parts: int, step: float
) -> list[Keystroke]:
    choice = Choice(WORDS)

    def build(name: str, some: OutputRows) -> TopK:
        return OUTPUT_LAYERS[name].build(some, choice, calibration)

    with ExitStack() as stack:
        layers = {OUTPUT_LAYERS[name].label: build(name, rows) for name in OUTPUT_LAYERS}
        for name in ("exact", "hire_lr") if parts > 1 else ():
            divided = InParts(rows, parts, lambda some, name=name: build(name, some))  # type: ignore[misc]
            layers[f"{OUTPUT_LAYERS[name].label}, {parts} parts"] = stack.enter_context(divided)
        times = _times(rows, layers, states)
        exact = [layers["exact"].best(state, WORDS).ids.tolist() for state in states]
        full = [min(pair) for pair in zip(times["exact"], times[_TORCH], strict=True)]
        made = [_row(rows, label, layer, states, exact) for label, layer in layers.items()]
    return [
        Keystroke(
            **row,
            microseconds=statistics.median(times[row["layer"]]),
            speed=statistics.median(a / b for a, b in zip(full, times[row["layer"]], strict=True)),
            step=step,
        )
        for row in made
    ]


_TORCH = "PyTorch"


def _times(rows: OutputRows, layers: dict[str, TopK], states: Array) -> dict[str, list[float]]:
    """Return each layer's microseconds, repeat by repeat; layers take turns."""
    calls: dict[str, Callable[[Array], object]] = {_TORCH: _Torch(rows).ask}
    for label, layer in layers.items():
        calls[label] = lambda state, layer=layer: layer.best(state, WORDS)  # type: ignore[misc]
    taken: dict[str, list[float]] = {label: [] for label in calls}
    for repeat in range(REPEATS + 1):
        for label, call in calls.items():
            clock = time.perf_counter if "parts" in label else time.thread_time
            some = [states[(repeat * _TIMED + k) % len(states)] for k in range(_TIMED)]
            began = clock()
            for state in some:
                call(state)
            taken[label].append(1e6 * (clock() - began) / _TIMED)
    return {label: times[1:] for label, times in taken.items()}  # the first is to warm up


def _row(
    rows: OutputRows, label: str, layer: TopK, states: Array, exact: list[list[int]]
) -> dict[str, Any]:
    best = [layer.best(state, WORDS) for state in states]
    pairs = [(one.ids.tolist(), right) for one, right in zip(best, exact, strict=True)]
    return {
        "words": len(rows),
        "size": rows.size,
        "layer": label,
        "megabytes": layer.bytes_read / 1e6,
        "rank": getattr(layer, "rank", None),
        "positions": len(states),
        "recall": float(np.mean([len({*ids} & {*right}) / len(right) for ids, right in pairs])),
        "agreement": float(np.mean([ids == right for ids, right in pairs])),
        "rescored": float(np.mean([one.rescored for one in best])),
        "fallen_back": float(np.mean([one.fell_back for one in best])),
    }


def keystroke_report(measured: Sequence[Keystroke]) -> Measurements:
    """Return the table and the figure."""
    return Measurements(
        name="keystroke",
        rows=[asdict(one) for one in measured],
        header=(
            "output layer",
            "method",
            "MB read",
            "rank",
            "recall",
            "same 3 words",
            "rows rescored",
            "all rows",
            "microseconds",
            "times as fast",
        ),
        table=[
            (
                f"{one.words:,} x {one.size}",
                one.layer,
                f"{one.megabytes:.2f}",
                "" if one.rank is None else str(one.rank),
                f"{one.recall:.5f}",
                f"{one.agreement:.2%}",
                f"{one.rescored:.0f}" if one.rescored else "",
                f"{one.fallen_back:.2%}" if "certified" in one.layer else "",
                f"{one.microseconds:.0f}",
                f"{one.speed:.1f}",
            )
            for one in measured
        ],
        note=(
            f"{measured[0].positions:,} held-out positions, batch 1, one thread; "
            f"{verdict(measured)} A step of the model takes {measured[0].step:.0f} microseconds "
            "before the output layer"
        ),
        figure=_figure(measured),
    )


def verdict(measured: Sequence[Keystroke]) -> str:
    """Return a sentence on whether other layers pay for the run's own output layer."""
    (own, *_) = measured
    size = f"the run's output layer has {own.megabytes:.1f} MB"
    if own.megabytes * 1e6 < PAYS:
        return f"{size}, and below about {PAYS / 1e6:.0f} MB another one does not pay."
    return f"{size}, where another one pays."


def _figure(measured: Sequence[Keystroke]) -> Figure:
    sizes = list(dict.fromkeys((one.words, one.size) for one in measured))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        for label in dict.fromkeys(one.layer for one in measured):
            times = [one.microseconds for one in measured if one.layer == label]
            axes.plot(range(len(sizes)), times, marker="o", label=label)
        axes.set_xticks(range(len(sizes)), [f"{words:,} x {size}" for words, size in sizes])
        axes.set(yscale="log", ylabel="microseconds", title="The three likeliest words, one state")
        axes.legend(fontsize="small")
    return figure
