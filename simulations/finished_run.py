"""Loading of a finished run and its model, from the run's folder only."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import fedsi
from fedsi.data.vocabulary import load_vocabulary
from fedsi.errors import DamagedError, UserError
from fedsi.experiment import Experiment
from fedsi.inference.reading import TrainedModel
from fedsi.model_objects import giving, is_given, path_of
from fedsi.models.build import build_model
from fedsi.tasks.table import task_of
from fedsi.trust import check_trusted
from server.runs.folder import BEST, EXPERIMENT, MODEL, RunFolder
from server.runs.summary import Summary
from simulations.safe_text import typed


@dataclass(frozen=True)
class FinishedRun:
    """A finished run and its model."""

    path: Path
    experiment: Experiment
    summary: Summary
    trained: TrainedModel
    flat: Tensor
    """All parameters, ``[parameters]``; those in ``trained`` are views of it."""


def open_run(
    path: Path,
    *,
    trust: bool = False,
    best: bool = False,
    model: Callable[..., object] | None = None,
) -> FinishedRun:
    """Open the folder of a finished run.

    Args:
        path: The folder.
        trust: Import the user's model that the run names from anywhere; otherwise only from the
            working folder or an installed package.
        best: Open the model with the lowest held-out loss instead of the last round's.
        model: The class or function that was given to ``simulate`` as an object.

    Raises:
        UserError: It holds no finished run, a file of it is missing or damaged, its files do not
            belong together, another version of fedsi wrote it in another format, or it names a
            model that may not be imported or that has to be given.
    """
    run = RunFolder(path)
    if not (path / EXPERIMENT).exists():
        raise UserError(f"{path} holds no run; name the folder of one, such as results/run-...")
    summary = run.summary()
    if summary is None:
        raise UserError(
            f"the run in {path} is not finished; finish it with: fedsi run --resume --out "
            f"{typed(path)}"
        )
    try:
        experiment = run.experiment()
        if not trust:
            check_trusted(experiment.import_paths, path)
        earlier = best and summary.best_round not in {None, summary.rounds}
        with _giving(model, experiment):
            trained, flat = _trained(run, BEST if earlier else MODEL, experiment, summary)
    except DamagedError:
        raise
    except UserError as error:
        version = summary.versions.get("fedsi", "?")
        if version == fedsi.__version__:
            raise
        raise UserError(
            f"the run in {path} was written by fedsi {version} and this is {fedsi.__version__}, "
            f"which cannot use it ({error}); use that version, or train again"
        ) from None
    return FinishedRun(path, experiment, summary, trained, flat)


def _giving(
    model: Callable[..., object] | None, experiment: Experiment
) -> AbstractContextManager[str]:
    """Make a run's model object known; refuse one if the run names its model."""
    named = experiment.model.architecture
    if model is not None and not is_given(named) and path_of(model) != named:
        raise UserError(f"the run names its model, {named}; leave model out")
    return giving(model, named)


def _trained(
    run: RunFolder, file: str, experiment: Experiment, summary: Summary
) -> tuple[TrainedModel, Tensor]:
    run.check_vocabulary()
    vocabulary = load_vocabulary(run.path)
    size = summary.vocabulary_size
    if len(vocabulary) != size:
        raise UserError(
            f"{run.path / vocabulary.file_name} has {len(vocabulary)} token ids and the model "
            f"{size}; put back the vocabulary that the run wrote, or run again with --overwrite"
        )
    arrays = run.best_model() if file == BEST else run.model()
    model = build_model(experiment, size, vocabulary)
    shapes = model.layout.shapes | {name: tuple(p.shape) for name, p in model.frozen.items()}
    if {name: tuple(array.shape) for name, array in arrays.items()} != shapes:
        raise UserError(
            f"the parameters in {run.path / file} are not those of the model that "
            f"{run.path / EXPERIMENT} describes; put back the files that the run wrote, or run "
            "again with --overwrite"
        )
    changed = [name for name, value in model.frozen.items() if not arrays[name].equal(value)]
    if changed:
        raise UserError(
            f"the parameter {changed[0]} of {experiment.model.architecture}, which is not trained, "
            f"has other values now than in {run.path / file}; put back the file that the module "
            "reads it from, or train again"
        )
    flat = torch.cat([arrays[name].flatten() for name in model.layout.shapes])
    trained = TrainedModel(model, model.layout.views(flat), vocabulary, task_of(experiment))
    return trained, flat
