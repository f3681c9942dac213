"""A table of faults: each kind is injected, and held against what the run counts and loses.

One client of each round has the fault. All runs have the same seed, so the same clients have it,
and every fault that costs their contributions must leave the same model. A last bit that differs
would show that a fault touched another client.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from fedsi.data.prepare import open_population, prepare
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.learning.faults import fault_of
from fedsi.messages import Outcome
from server.cohorts.sampling import draw_cohort
from simulations.benchmarks.report import Measurements
from simulations.engines.table import NO_OPTIONS, EngineOptions
from simulations.losses import in_words
from simulations.presets import load_preset
from simulations.simulation import simulate

LEADS_TO = {
    "raising": Outcome.RAISED,
    "not_a_number": Outcome.NOT_FINITE,
    "infinite": Outcome.NOT_FINITE,
    "wrong_shape": Outcome.WRONG_SHAPE,
    "huge": Outcome.OUT_OF_RANGE,
    "zeros": Outcome.AGGREGATED,
    "slow": Outcome.TOO_SLOW,
    "killed": Outcome.PROCESS_ENDED,
    "stopped": Outcome.TOO_SLOW,
}
"""What becomes of a client with a fault in a run without clipping."""
COHORT, SHARE, MOST_SEEDS = 6, 1 / 6, 100_000


@dataclass(frozen=True)
class Injected:
    """An engine, and the faults that are injected there."""

    faults: tuple[str, ...]
    engine: str = "in_process"
    workers: int = 1
    options: EngineOptions = NO_OPTIONS
    needs: str = ""
    """The package without which it is left out."""


PLACES = {
    "in process": Injected(
        tuple(fault for fault in LEADS_TO if fault not in {"killed", "stopped"})
    ),
    "2 workers": Injected(("slow", "killed", "stopped"), workers=2),
    "Ray, 2 nodes": Injected(
        ("slow", "killed", "stopped"), "ray", options=EngineOptions(nodes=2), needs="ray"
    ),
}


@dataclass(frozen=True)
class FaultRun:
    """A run with one kind of fault."""

    place: str
    fault: str
    """Empty for the run without a fault."""
    injected: int
    """Clients with the fault."""
    happened: int
    """Clients with the outcome that the fault leads to."""
    losses: dict[str, int]
    """All lost contributions of the run, by kind."""
    seconds: float
    """Median seconds of a round with the fault."""
    model_sha256: str

    def is_as_expected(self, one_lost: str) -> bool:
        """Whether the fault cost its clients' contributions and nothing else.

        Args:
            one_lost: SHA-256 of the model of a run without these contributions.
        """
        kind = LEADS_TO[self.fault]
        lost = {} if kind == Outcome.AGGREGATED else {kind.name.lower(): self.injected}
        same = self.model_sha256 == one_lost
        return self.happened == self.injected and self.losses == lost and same == bool(lost)


def measure_faults(
    rounds: int, timeout: float, places: Sequence[str], cache: Path, step: Callable[..., None]
) -> list[FaultRun]:
    """Run an experiment with each kind of fault in some places, and once without any.

    Args:
        rounds: Number of rounds, each with one faulty client.
        timeout: Time limit of a reply in seconds.
        places: Keys of ``PLACES``; those that miss their package are left out.
        cache: Folder for the population.
        step: Called with the progress.

    Raises:
        UserError: No seed has one faulty client in each of so many rounds.
    """
    experiment = _with_one_fault_a_round(rounds, timeout, cache)
    found = []
    for name in places:
        place = PLACES[name]
        if place.needs and not importlib.util.find_spec(place.needs):
            continue
        whole = ""
        for number, fault in enumerate(faults := ("", *place.faults)):
            step(name, number, len(faults))
            found.append(_measured(name, place, fault, experiment, cache, whole))
            whole = whole or found[-1].model_sha256
    return found


def _with_one_fault_a_round(rounds: int, timeout: float, cache: Path) -> Experiment:
    """Return the experiment without a fault; with the share ``SHARE`` each round has one."""
    experiment = load_preset("smoke").updated(
        {
            "server.rounds": rounds,
            "server.cohort_size": COHORT,
            "server.evaluate_every": rounds,
            "server.round_timeout": timeout,
        }
    )
    clients = open_population(prepare(experiment.data, cache)).description.training_clients
    for seed in range(MOST_SEEDS):
        candidate = experiment.updated({"seed": seed, "faults.raising": SHARE})
        if all(_faulty(candidate, clients, number) == 1 for number in range(1, rounds + 1)):
            return experiment.updated({"seed": seed})
    raise UserError(f"no seed has one faulty client in each of {rounds} rounds; take fewer rounds")


def _faulty(experiment: Experiment, clients: int, number: int) -> int:
    cohort = draw_cohort(experiment, clients, None, number, experiment.seed).reporting
    return sum(bool(fault_of(experiment, number, client)) for client in cohort.tolist())


def _measured(
    name: str, place: Injected, fault: str, experiment: Experiment, cache: Path, whole: str
) -> FaultRun:
    """Run an experiment with a fault; ``whole`` is the model's SHA-256 of the run without it."""
    changes = {f"faults.{fault}": SHARE} if fault else {}
    result = simulate(
        experiment.updated(changes),
        engine=place.engine,
        workers=place.workers,
        engine_options=place.options,
        cache=cache,
    )
    rounds, losses = experiment.server.rounds, dict(result.summary.losses)
    model, kind = result.summary.model_sha256, LEADS_TO.get(fault, Outcome.AGGREGATED)
    happened = losses.get(kind.name.lower(), 0)
    if kind == Outcome.AGGREGATED and fault:  # its only trace is another model
        happened = rounds if model != whole else 0
    return FaultRun(
        place=name,
        fault=fault,
        injected=rounds if fault else 0,
        happened=happened,
        losses=losses,
        seconds=float(result.rounds["train_seconds"][1:].median()),  # the first row is round 0
        model_sha256=model,
    )


def faults_report(runs: Sequence[FaultRun], timeout: float) -> Measurements:
    """Return the table and the figure."""
    reference = next(run.model_sha256 for run in runs if run.fault == "raising")
    table = [
        (
            run.place,
            run.fault or "none",
            str(run.injected),
            str(run.happened),
            in_words(run.losses) or "nothing",
            _touched(run, reference),
            f"{run.seconds:.2f}",
        )
        for run in runs
    ]
    rows = [
        {"place": run.place, "fault": run.fault, "injected": run.injected,
         "happened": run.happened, "lost": sum(run.losses.values()), "seconds": run.seconds,
         "model_sha256": run.model_sha256}
        for run in runs
    ]  # fmt: skip
    return Measurements(
        name="faults",
        rows=rows,
        header=("where", "fault", "injected", "happened", "lost", "others", "s per round"),
        table=table,
        note=(
            f"One client of each round has the fault, of {COHORT}; server.round_timeout is "
            f"{timeout:g} s; others are untouched if the model has the bits of the run in which "
            "the same clients raised exceptions; seconds are medians of wall-clock time"
        ),
        figure=_figure(runs),
    )


def _touched(run: FaultRun, reference: str) -> str:
    if not run.fault:
        return "all trained"
    if LEADS_TO[run.fault] == Outcome.AGGREGATED:
        return "all trained" if not run.losses else "LOST"
    return "untouched" if run.is_as_expected(reference) else "TOUCHED"


def _figure(runs: Sequence[FaultRun]) -> Figure:
    figure = Figure(figsize=(7, 0.4 + 0.3 * len(runs)), layout="constrained")
    axes = figure.subplots()
    axes.barh([f"{run.place}: {run.fault or 'none'}" for run in runs], [r.seconds for r in runs])
    axes.invert_yaxis()
    axes.set_xlabel("seconds per round")
    return figure
