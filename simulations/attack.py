"""Accuracy of trained models under an attack on their word vectors, over its strength."""

import itertools
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsi.data.corpus import Progress
from fedsi.data.population import Population
from fedsi.errors import UserError
from fedsi.inference.attack import Attacked, attack_texts, check_attackable
from fedsi.tasks.table import task_on
from fedsi.tasks.task import Batch, cross_entropy
from fedsi.threads import torch_threads
from server.rounds import evaluated_clients
from simulations.benchmarks.report import Measurements
from simulations.finished_run import FinishedRun
from simulations.reports.figures import STYLE

_EXAMPLES = 64
"""Examples attacked at a time."""


@dataclass(frozen=True)
class AttackedRun:
    """One run at one epsilon."""

    run: str
    group: str
    """Name of the runs that differ from it in nothing but their seed."""
    seed: int
    epsilon: float
    targets: int
    accuracy: float
    retained: float | None
    """Share of the targets that are right without the attack which still are; None if none is."""
    overlap: float | None
    """Mean of a token's experts that are its experts without the attack, over those of either; None
    for dense parts."""
    loss: float
    """Nats a target."""


def attack_run(
    run: FinishedRun,
    population: Population,
    epsilons: Sequence[float],
    steps: int,
    targets: int,
    tell: Progress,
) -> list[AttackedRun]:
    """Attack a run's model on its evaluated held-out clients.

    Args:
        run: The run.
        population: Its population.
        epsilons: Strengths; 0 is added.
        steps: Steps of each attack.
        targets: Targets to attack; texts are taken whole, so there may be some more.
        tell: Called to report progress.

    Raises:
        UserError: The model has no word vectors, its task has a loss of its own, or there are fewer
            targets.
    """
    check_attackable(run.trained)
    task = task_on(run.experiment, population)
    if task.losses is not cross_entropy:
        raise UserError(
            f"task.name={run.experiment.task.name} has a loss of its own, and the attack raises "
            "the cross-entropy; name a run of another task"
        )
    strengths = sorted({0.0, *epsilons})
    total = [Attacked(0, 0, 0, 0.0, 0, 0.0) for _ in strengths]
    with torch_threads(1):
        for batch in _batches(run, population, targets):
            found = attack_texts(run.trained, batch, strengths, steps)
            total = [one + more for one, more in zip(total, found, strict=True)]
            tell(f"attacked targets of {run.path.name}", total[0].targets, targets)
    if total[0].targets < targets:
        raise UserError(
            f"the held-out clients that {run.path} evaluates have {total[0].targets:,} targets and "
            f"not {targets:,}; lower --targets, or train with more server.evaluation_clients"
        )
    return [
        _row(run, epsilon, one, total[0]) for epsilon, one in zip(strengths, total, strict=True)
    ]


def _batches(run: FinishedRun, population: Population, targets: int) -> list[Batch]:
    task, found, number = task_on(run.experiment, population), [], 0
    for client in evaluated_clients(run.experiment, population.description).tolist():
        rows = population.examples(client)
        for first in range(0, len(rows), _EXAMPLES):
            batch = task.batch(rows[first : first + _EXAMPLES])
            if number < targets and batch.count:
                found.append(batch)
                number += batch.count
    return found


def _row(run: FinishedRun, epsilon: float, found: Attacked, without: Attacked) -> AttackedRun:
    name = run.path.resolve().name
    return AttackedRun(
        run=name,
        group=re.sub(r"(-[0-9a-f]{8})?-seed\d+$", "", name).replace("_", " "),
        seed=run.experiment.seed,
        epsilon=epsilon,
        targets=found.targets,
        accuracy=found.right / found.targets,
        retained=found.kept / without.right if without.right else None,
        overlap=found.overlap / found.tokens if found.tokens else None,
        loss=found.loss / found.targets,
    )


def attack_report(found: Sequence[AttackedRun], steps: int) -> Measurements:
    """Return the table and the figure; runs that differ in their seed are one line."""
    groups = _grouped(found)
    header = ("run", "seeds", "epsilon", "accuracy", "retained", "same experts", "loss")
    table = [
        (
            group,
            str(len(rows)),
            f"{epsilon:g}",
            _spread([one.accuracy for one in rows]),
            _spread([one.retained for one in rows]),
            _spread([one.overlap for one in rows]),
            _spread([one.loss for one in rows]),
        )
        for (group, epsilon), rows in groups.items()
    ]
    fewest = min(one.targets for one in found)
    return Measurements(
        name="attack",
        rows=[one.__dict__ for one in found],
        header=header,
        table=table,
        note=(
            f"At least {fewest:,} held-out targets a run, {steps} projected gradient steps on the "
            "word vectors; epsilon is a share of their root mean square; ± is half the range over "
            "seeds"
        ),
        figure=_figure(groups),
    )


_Groups = Mapping[tuple[str, float], list[AttackedRun]]


def _grouped(found: Sequence[AttackedRun]) -> _Groups:
    groups: dict[tuple[str, float], list[AttackedRun]] = {}
    for one in sorted(found, key=lambda one: (one.group, one.epsilon)):
        groups.setdefault((one.group, one.epsilon), []).append(one)
    return groups


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean, half = statistics.mean(known), (max(known) - min(known)) / 2
    return f"{mean:.4f} ± {half:.4f}" if len(known) > 1 else f"{mean:.4f}"


def _figure(groups: _Groups) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _curves(left, groups, "accuracy")
        _curves(right, groups, "retained")
        left.set(ylabel="accuracy", title="Right next words")
        right.set(ylabel="share", title="Right ones that stay right", ylim=(0, 1.02))
        left.legend(fontsize="small")
    return figure


def _curves(axes: Axes, groups: _Groups, quantity: str) -> None:
    axes.set_xlabel("epsilon, share of the vectors' root mean square")
    for group, keys in itertools.groupby(groups, key=lambda key: key[0]):
        epsilons = [epsilon for _, epsilon in keys]
        each = [[getattr(one, quantity) or 0.0 for one in groups[group, e]] for e in epsilons]
        (line,) = axes.plot(epsilons, [statistics.mean(v) for v in each], marker="o", label=group)
        low, high = [min(v) for v in each], [max(v) for v in each]
        axes.fill_between(epsilons, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
