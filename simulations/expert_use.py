"""Experts of a trained mixture: which clients use them, and what clipping leaves of their updates.

Training clients train once more from the final model, as in a round of the run. A client's use of
an expert is its share of the client's tokens. Clipping multiplies a client's whole update by
``min(1, C / norm)``, so an expert keeps what the clients that trained it keep: ``kept`` is the norm
of the mean clipped update of the expert's weights over that of the mean unclipped one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from fedsi.data.corpus import Progress
from fedsi.data.population import Population
from fedsi.errors import UserError
from fedsi.learning.client import LocalTrainer
from fedsi.learning.client_round import ClientRounds
from fedsi.models.feedforward.table import part_of
from fedsi.tasks.task import Batch
from fedsi.threads import torch_threads
from simulations.benchmarks.report import Measurements
from simulations.finished_run import FinishedRun
from simulations.reports.figures import STYLE

HARDLY = 0.01
"""A client hardly uses an expert below this share of its tokens."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExpertUse:
    """One expert."""

    block: int
    expert: int
    tokens: float
    """Mean over clients of the share of their tokens that use it."""
    least: float
    """The lowest such share."""
    most: float
    """The highest such share."""
    hardly: int
    """Clients that hardly use it."""
    norm: float
    """Mean norm of the clients' updates of its weights."""
    mean_norm: float
    """Norm of the mean update of its weights."""
    kept: float
    """Share of ``mean_norm`` that clipping leaves."""


def expert_use(
    run: FinishedRun, population: Population, clients: int, clip_norm: float | None, tell: Progress
) -> tuple[list[ExpertUse], float]:
    """Return the use of each expert, and the norm to which updates are clipped.

    Args:
        run: The run.
        population: Its population.
        clients: Number of training clients, evenly spaced over all of them.
        clip_norm: The clipping norm; None for the median norm of these clients' updates.
        tell: Called to report progress.

    Raises:
        UserError: The model has no experts, or there are fewer training clients.
    """
    settings = run.experiment.model
    if settings.feedforward != "moe":
        raise UserError(
            f"{run.path} has model.feedforward={settings.feedforward} and no experts; name a run "
            "with model.feedforward=moe"
        )
    own = population.description.training_clients
    if clients > own:
        raise UserError(f"{run.path} has {own} training clients and not {clients}; lower --clients")
    chosen = np.linspace(0, own - 1, clients).astype(int).tolist()
    start, used, updates = run.flat.clone(), [], []
    rounds = ClientRounds(run.experiment, population, len(start))
    trainer = LocalTrainer(run.trained.model, run.experiment.client, rounds.task.losses)
    trainer.begin(start)
    with torch_threads(1):
        for number, client in enumerate(chosen):
            batches = list(rounds.batches(run.summary.rounds + 1, client))
            if batches:
                used.append(_used(run, batches))
                trainer.train(batches)
                updates.append((trainer.parameters - start).numpy().copy())
            tell("clients train from the final model", number + 1, clients)
    norms = np.array([np.linalg.norm(one) for one in updates])
    limit = float(np.median(norms)) if clip_norm is None else clip_norm
    return _rows(run, np.stack(used), np.stack(updates), norms, limit), limit


def _used(run: FinishedRun, batches: Sequence[Batch]) -> Array:
    """Return the share of a client's tokens that use each expert, ``[blocks, experts]``."""
    settings, model = run.experiment.model, cast("Any", run.trained.model)
    choices = part_of(settings).choices
    assert choices is not None, "it was refused"  # noqa: S101
    sums, tokens = np.zeros((settings.layers, settings.experts)), 0
    with torch.inference_mode():
        for batch in batches:
            given = batch.positions
            ids = None if given is None else torch.from_numpy(given)
            inputs = torch.from_numpy(batch.inputs).long()
            _, seen = model.features_and_parts(run.trained.parameters, inputs, ids)
            asked = torch.from_numpy(batch.asked)
            own = [model.part_parameters(run.trained.parameters, k) for k in range(len(seen))]
            each = [choices(settings, a, x)[asked].sum(0) for a, x in zip(own, seen, strict=True)]
            sums += torch.stack(each).double().numpy()
            tokens += batch.count
    return sums / tokens


def _rows(
    run: FinishedRun, used: Array, updates: NDArray[np.float32], norms: Array, limit: float
) -> list[ExpertUse]:
    """Return the rows; ``used [clients, blocks, experts]``, ``updates [clients, parameters]``."""
    factors = np.minimum(1, limit / np.maximum(norms, 1e-30))
    views = run.trained.model.layout.views(torch.from_numpy(updates))
    found = []
    for block in range(used.shape[1]):
        names = [f"blocks.{block}.feedforward.{name}" for name in ("inner", "outer")]
        for expert in range(used.shape[2]):
            own = _side_by_side([views[name][:, expert] for name in names])
            mean = np.linalg.norm(own.mean(0))
            clipped = np.linalg.norm((factors[:, None] * own).mean(0))
            shares = used[:, block, expert]
            found.append(
                ExpertUse(
                    block=block,
                    expert=expert,
                    tokens=float(shares.mean()),
                    least=float(shares.min()),
                    most=float(shares.max()),
                    hardly=int((shares < HARDLY).sum()),
                    norm=float(np.linalg.norm(own, axis=1).mean()),
                    mean_norm=float(mean),
                    kept=float(clipped / mean) if mean else 1.0,
                )
            )
    return found


def _side_by_side(parts: Sequence[Tensor]) -> Array:
    """Return parts ``[clients, *]`` as one row a client."""
    return torch.cat([part.flatten(1) for part in parts], 1).double().numpy()


def experts_report(found: Sequence[ExpertUse], clients: int, limit: float) -> Measurements:
    """Return the table and the figure."""
    header = (
        "block",
        "expert",
        "tokens",
        "of a client",
        "hardly used by",
        "update",
        "mean",
        "kept",
    )
    return Measurements(
        name="experts",
        rows=[asdict(one) for one in found],
        header=header,
        table=[
            (
                str(one.block),
                str(one.expert),
                f"{one.tokens:.1%}",
                f"{one.least:.0%} to {one.most:.0%}",
                str(one.hardly),
                f"{one.norm:.2g}",
                f"{one.mean_norm:.2g}",
                f"{one.kept:.3f}",
            )
            for one in found
        ],
        note=(
            f"{clients} training clients, once more from the final model; update: mean norm of "
            f"clients' updates of the expert's weights; mean: norm of their mean; kept: share of "
            f"it after clipping whole updates to {limit:.3g}"
        ),
        figure=_figure(found),
    )


def _figure(found: Sequence[ExpertUse]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        for block in dict.fromkeys(one.block for one in found):
            own = [one for one in found if one.block == block]
            axes.scatter(
                [one.tokens for one in own], [one.kept for one in own], label=f"block {block}"
            )
        axes.set(
            xlabel="share of the tokens",
            ylabel="share of the mean update",
            title="What clipping leaves of an expert's update",
        )
        axes.legend(fontsize="small")
    return figure
