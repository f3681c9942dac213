"""Time and memory of a round of each preset named after a published size."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from fedsi.data.corpus import Progress
from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import Experiment
from fedsi.models.build import build_model
from simulations.benchmarks.lockstep import contestant
from simulations.benchmarks.machine import MIB
from simulations.benchmarks.report import Measurements
from simulations.benchmarks.scaling.workers import write_task
from simulations.presets import load_preset
from simulations.reports.figures import STYLE, colour_of

PRESETS = (
    "stackoverflow_cifg",
    "stackoverflow_transformer",
    "cifg_4_7m",
    "cifg_19m",
    "transformer_21m",
)


@dataclass(frozen=True)
class PresetRound:
    """A measured round."""

    preset: str
    parameters: int
    cohort: int
    seconds: float
    peak_mib: float
    """Peak memory of the whole process: server, node, Python and its libraries."""
    before_mib: float
    """Memory of the same process before its first round."""


def measure_preset(
    name: str, corpus: str, cohort: int, folder: Path, cache: Path, tell: Progress
) -> PresetRound:
    """Run two rounds of a preset's model and clients on a corpus; the second one is measured.

    Args:
        name: One of ``PRESETS``.
        corpus: Replaces the preset's own corpus.
        cohort: Clients in a round.
        folder: Folder for temporary files.
        cache: Folder for populations.
        tell: Called to report progress.

    Raises:
        BenchmarkError: The process died.
        UserError: The corpus cannot be read.
    """
    experiment = _on(load_preset(name), corpus, cohort)
    population = prepare(experiment.data, cache, tell)
    words = open_population(population).description.vocabulary_size
    tell(name, 0, 0)
    with contestant(name, write_task(experiment, population, 1, folder / name)) as one:
        before = one.round()["before"]
        answer = one.round()
        one.finish()
    return PresetRound(
        preset=name,
        parameters=build_model(experiment, words).layout.size,
        cohort=cohort,
        seconds=answer["seconds"],
        peak_mib=answer["peak"] / MIB,
        before_mib=before / MIB,
    )


def presets_report(rounds: Sequence[PresetRound]) -> Measurements:
    """Return the table and the figure."""
    return Measurements(
        name="presets",
        rows=[asdict(one) for one in rounds],
        header=("preset", "parameters", "clients", "seconds per round", "peak MiB", "before MiB"),
        table=[
            (
                one.preset,
                f"{one.parameters:,}",
                str(one.cohort),
                f"{one.seconds:.2f}",
                f"{one.peak_mib:.0f}",
                f"{one.before_mib:.0f}",
            )
            for one in rounds
        ],
        note="One worker with one thread; the first round is dropped",
        figure=_figure(rounds),
    )


def _on(preset: Experiment, corpus: str, cohort: int) -> Experiment:
    kept = preset.data
    return Experiment(seed=preset.seed, model=preset.model, client=preset.client).updated(
        {
            "data.corpus": corpus,
            "data.vocabulary_size": kept.vocabulary_size,
            "data.sequence_length": kept.sequence_length,
            "data.max_examples_per_client": kept.max_examples_per_client,
            "server.cohort_size": cohort,
            "server.rounds": 2,
            "server.evaluate_every": 2,
            "server.evaluation_clients": 1,
        }
    )


def _figure(rounds: Sequence[PresetRound]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.0), layout="constrained")
        time, memory = figure.subplots(1, 2, sharey=True)
        names = [one.preset for one in rounds]
        time.barh(names, [one.seconds for one in rounds], color=colour_of("si_cifg"))
        time.set(xlabel=f"seconds for {rounds[0].cohort} clients", title="A round")
        memory.barh(names, [one.peak_mib for one in rounds], color=colour_of("cifg"))
        memory.set(xlabel="MiB", title="Peak memory of the process")
        time.invert_yaxis()
        for axes in (time, memory):
            axes.set_axisbelow(True)
            axes.grid(visible=False, axis="y")
    return figure
