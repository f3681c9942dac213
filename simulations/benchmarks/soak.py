"""A long run in which clients fail: its memory, its open files, and whether every loss is counted.

The faults of an experiment (``faults.*``) are pure functions of seed, round and client, so the
number of each kind is known without running it, and is compared with what the run counted.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import Experiment
from fedsi.learning.faults import fault_of
from fedsi.messages import Outcome
from server.cohorts.sampling import draw_cohort
from server.round_record import RoundRecord
from server.runs.summary import Summary
from simulations.benchmarks.fault_table import LEADS_TO
from simulations.benchmarks.machine import MIB
from simulations.benchmarks.report import Measurements
from simulations.losses import WORDS
from simulations.presets import load_preset
from simulations.reports.figures import STYLE
from simulations.simulation import simulate

FAILING = {"raising": 0.08, "wrong_shape": 0.05, "not_a_number": 0.05, "infinite": 0.05,
           "huge": 0.02, "zeros": 0.05}  # fmt: skip
"""Shares of clients, 30 % together."""
HELD = ("memory_mib", "workers_memory_mib", "descriptors", "workers_descriptors")
"""Columns that should be constant: what the process and its workers hold."""
SETTLED = 0.1
"""Part of a run after which its memory should be constant."""
ENDED = (FileNotFoundError, ProcessLookupError)
"""What /proc raises for a thread or process that ended since it was listed: it holds nothing."""


@dataclass(frozen=True)
class Soak:
    """The result of a long run with faults."""

    rows: list[dict[str, float]]
    """A row for each round: what became of its clients, and the memory in MiB and the open file
    descriptors of this process, and of all worker processes together."""
    injected: dict[str, int]
    """Clients with each fault."""
    summary: Summary
    finite: bool
    """Whether all parameters of the final model are finite."""

    def accounts(self) -> list[tuple[str, int, int]]:
        """Return for each outcome the injected faults that lead to it, and the counted clients."""
        found = self.summary
        expected: Counter[Outcome] = Counter()
        for fault, count in self.injected.items():
            expected[LEADS_TO[fault]] += count
        everyone = found.clients_trained + sum(found.losses.values())
        healthy = everyone - sum(self.injected.values())
        lost = [
            (words, expected[kind], found.losses.get(kind.name.lower(), 0))
            for kind, words in WORDS.items()
        ]
        aggregated = healthy + expected[Outcome.AGGREGATED]
        told = [row for row in lost if any(row[1:])]
        return [*told, ("aggregated", aggregated, found.clients_trained)]

    def span(self, column: str) -> tuple[float, float]:
        """Return the least and the most of a column after the run has settled."""
        values = [row[column] for row in self.rows[int(SETTLED * len(self.rows)) :]]
        return min(values), max(values)


def measure_soak(
    rounds: int,
    cohort: int,
    workers: int,
    more: Mapping[str, float],
    timeout: float,
    cache: Path,
    step: Callable[[str, int, int], None],
) -> Soak:
    """Run the smoke preset for many rounds with 30 % failing clients.

    Args:
        rounds: Number of rounds.
        cohort: Clients per round.
        workers: Worker processes.
        more: Shares of clients with more faults.
        timeout: Time limit of a reply in seconds.
        cache: Folder for the population.
        step: Called with the progress.
    """
    shares = {**FAILING, **more}
    experiment = load_preset("smoke").updated(
        {
            "server.rounds": rounds,
            "server.cohort_size": cohort,
            "server.round_timeout": timeout,
            "server.evaluate_every": max(1, rounds // 10),
            **{f"faults.{name}": share for name, share in shares.items()},
        }
    )
    rows: list[dict[str, float]] = []

    def on_round(_: Experiment, record: RoundRecord) -> None:
        counted = {name: getattr(record, name) for name in ("failed", "lost", "rejected")}
        rows.append({"round": record.round, **_held(), "aggregated": record.clients, **counted})
        step("rounds", record.round, rounds)

    result = simulate(experiment, cache=cache, workers=workers, on_round=on_round)
    finite = all(bool(array.isfinite().all()) for array in result.parameters.values())
    return Soak(rows, _injected(experiment, cache), result.summary, finite)


def soak_report(soak: Soak) -> Measurements:
    """Return the report: a table of what was injected and counted, and curves."""
    table = [[what, f"{known:,}", f"{counted:,}"] for what, known, counted in soak.accounts()]
    spans = {column: "{:.0f} to {:.0f}".format(*soak.span(column)) for column in HELD}
    held = f"{spans['memory_mib']} MiB and {spans['descriptors']} open descriptors"
    if soak.rows[-1]["workers_memory_mib"]:
        held += (
            f", and its workers {spans['workers_memory_mib']} MiB and "
            f"{spans['workers_descriptors']} descriptors together"
        )
    return Measurements(
        "soak",
        soak.rows,
        ["clients", "expected from the injected faults", "counted by the run"],
        table,
        f"{len(soak.rows):,} rounds; parameters {'' if soak.finite else 'not '}finite; after the "
        f"first tenth the process held {held}",
        _figure(soak),
    )


def _injected(experiment: Experiment, cache: Path) -> dict[str, int]:
    clients = open_population(prepare(experiment.data, cache)).description.training_clients
    counts: Counter[str] = Counter()
    for number in range(1, experiment.server.rounds + 1):
        cohort = draw_cohort(experiment, clients, None, number, experiment.seed).reporting
        counts.update(fault_of(experiment, number, client) for client in cohort.tolist())
    return {name: counts[name] for name in type(experiment.faults).model_fields}


def _held() -> dict[str, float]:
    """Return the columns of ``HELD``, now."""
    workers = [
        worker
        for thread in Path("/proc/self/task").iterdir()
        for worker in _read(thread / "children").split()
    ]
    return {
        "memory_mib": _memory("self"),
        "workers_memory_mib": sum(map(_memory, workers)),
        "descriptors": _descriptors("self"),
        "workers_descriptors": sum(map(_descriptors, workers)),
    }


def _memory(process: str) -> float:
    sizes = _read(Path(f"/proc/{process}/statm")).split()
    return int(sizes[1]) * os.sysconf("SC_PAGE_SIZE") / MIB if sizes else 0.0


def _descriptors(process: str) -> int:
    try:
        return len(list(Path(f"/proc/{process}/fd").iterdir()))
    except ENDED:
        return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except ENDED:
        return ""


def _figure(soak: Soak) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4.4), layout="constrained")
        rounds = [row["round"] for row in soak.rows]
        labels = {"memory_mib": "resident memory [MiB]", "descriptors": "open descriptors"}
        panels = figure.subplots(2, sharex=True)
        for axes, (column, label) in zip(panels, labels.items(), strict=True):
            axes.plot(rounds, [row[column] for row in soak.rows], label="command")
            workers = [row[f"workers_{column}"] for row in soak.rows]
            if any(workers):
                axes.plot(rounds, workers, "--", label="its workers together")
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
            axes.set_ylabel(label)
        panels[0].legend(loc="center right")
        panels[-1].set_xlabel("round")
    return figure
