"""Simulation of one experiment on this machine: population, engine, both apps, plots."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fedsi import accelerator
from fedsi.data.baselines import Baselines
from fedsi.data.cache import DEFAULT_CACHE
from fedsi.data.corpus import Corpus, Progress, silent
from fedsi.data.population import Description, Population
from fedsi.data.prepare import open_population, prepare_for
from fedsi.data.public_corpus import open_public_corpus
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.product_choice import check_processor
from fedsi.learning.algorithms.table import algorithm_of
from fedsi.model_objects import given_factory, giving, is_given, shown
from fedsi.models.build import build_model
from fedsi.models.model import all_parameters
from fedsi.models.parameters import Parameters
from fedsi.tasks.table import task_of
from server.configuration import RunConfiguration
from server.observers import Observer
from server.runs.folder import RunFolder
from server.runs.rounds_file import rows_text
from server.runs.settled import settled
from simulations.engines.table import NO_OPTIONS, USUAL, EngineOptions, engine_for
from simulations.evaluation import baselines_of
from simulations.footprint import check_footprint, check_lengths
from simulations.kept_results import CURVES, keep_baselines, kept_baselines
from simulations.result import Result
from simulations.tracking.sink import Sink, Started
from simulations.tracking.watch import watched

if TYPE_CHECKING:
    from server.round_record import RoundRecord


def simulate(
    experiment: Experiment,
    *,
    model: Callable[..., object] | None = None,
    workers: int = 1,
    engine: str = USUAL,
    engine_options: EngineOptions = NO_OPTIONS,
    out: Path | str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    other_machine: bool = False,
    cache: Path = DEFAULT_CACHE,
    corpus: Corpus | None = None,
    on_corpus: Callable[[Description], None] | None = None,
    on_round: Observer | None = None,
    sinks: Sequence[Sink] = (),
    progress: Progress = silent,
) -> Result:
    """Run an experiment from its first round or its checkpoint to its end.

    Args:
        experiment: The experiment.
        model: A class or function that builds a model, in place of ``model.architecture``. One that
            only this process has, such as a notebook's, needs ``workers=1``, and to be given again
            when the run is resumed or opened.
        workers: Number of a node's processes; one on this machine is this process. The result does
            not depend on it.
        engine: Name of the engine in ``simulations.engines.table``.
        engine_options: Options that only some engines use.
        out: Folder for the run; None writes nothing.
        overwrite: Replace an existing run.
        resume: Continue an existing run, even a finished one if the experiment now has more rounds
            or ends later by ``server.patience``, ``target_loss`` or a budget.
        other_machine: Continue it even if its bits may differ from those of a run never stopped.
        cache: Folder for corpora and populations.
        corpus: A corpus in memory (``fedsi.data.corpora_in_memory``) instead of the one that the
            experiment names; the run records its name.
        on_corpus: Called before the first round with the population's description.
        on_round: Called after each round; the run ends if it returns True.
        sinks: Receivers of the run's events (``simulations.tracking``).
        progress: Called with the progress of preparing the corpus.

    Raises:
        UserError: The experiment, its corpus or its folder cannot be used.
    """
    changes = {"data.corpus": corpus.name} if corpus else {}
    with watched(sinks) as watch, giving(model) as architecture:
        chosen = engine_for(engine, engine_options)
        processes = workers * (engine_options.nodes or 1)
        _check_workers(processes, experiment)
        if chosen.remote:
            _check_remote(engine, workers, corpus)
        if architecture:
            changes["model.architecture"] = architecture
        folder = RunFolder(Path(out)) if out is not None else None
        asked = experiment.located(Path.cwd()).updated(changes)
        experiment = settled(asked, folder, resume=resume, cache=cache)
        _check_importable(experiment, engine, workers)
        if engine == USUAL:
            accelerator.check(experiment.client.device)
        opened = partial(_opened, experiment, cache, corpus)
        started = partial(_started, experiment, folder, engine=engine, workers=workers)
        if folder:
            folder.check_free(experiment, overwrite=overwrite, resume=resume)
            if resume and (summary := folder.finished(experiment)):
                watch.start(started(resume=resume))
                watch.summary = summary
                rows = rows_text(folder.records(), task_of(experiment).names)
                counted = kept_baselines(folder.path)
                if not chosen.remote and not (folder.path / CURVES).exists():
                    # It was stopped between its last round and its end.
                    here = open_population(prepare_for(experiment, cache, progress, corpus))
                    counted = _add_comparisons(experiment, folder.path, here, cache, progress)
                return Result(summary, folder.model(), rows, experiment, opened, model, counted)
        _check_processor(experiment, remote=chosen.remote)
        config = RunConfiguration(
            experiment,
            folder=folder.path if folder else None,
            overwrite=overwrite,
            resume=resume,
            other_machine=other_machine,
            engine=engine,
            workers=None if chosen.remote else workers,
            cache=cache,
        )
        with folder.held() if folder else nullcontext():
            population, clients = Path(), None
            if not chosen.remote:
                population = prepare_for(experiment, cache, progress, corpus)
                clients = open_population(population)
                _check_size(experiment, clients.description, processes)
                check_lengths(experiment, clients)
                _prepare_public(experiment, clients, cache, progress)
            if on_corpus and clients:
                on_corpus(clients.description)
            watch.start(started(resume=resume))
            observers: list[Observer] = [watch, *([on_round] if on_round else [])]
            trained = chosen.run(config, population, observers, engine_options)
            watch.summary = trained.summary
            counted = None
            if folder:
                counted = _add_comparisons(experiment, folder.path, clients, cache, progress)
        summary = trained.summary
        parameters = _named(experiment, summary.vocabulary_size, trained.parameters)
        return Result(summary, parameters, trained.rows, experiment, opened, model, counted)


def _add_comparisons(
    experiment: Experiment,
    folder: Path,
    clients: Population | None,
    cache: Path,
    progress: Progress,
) -> Baselines | None:
    """Write n-gram models' losses, where the clients are here, and the curves of a trained run."""
    from simulations.reports.run import write_curves  # noqa: PLC0415 - Matplotlib

    counted = baselines_of(experiment, clients, cache, progress) if clients else None
    keep_baselines(counted, folder)
    write_curves(folder)
    return counted


def _started(
    experiment: Experiment, folder: RunFolder | None, *, engine: str, workers: int, resume: bool
) -> Started:
    """Return the beginning of a run for its sinks, with the rounds that it already has."""
    records: Sequence[RoundRecord] = ()
    if folder and resume:
        with suppress(UserError):  # there is no run yet, or the engine refuses a damaged one
            records = folder.records()
    return Started(
        folder.path.resolve().name if folder else experiment.model.architecture,
        experiment,
        records,
        fresh=not resume,
        facts={"engine": engine, "workers": workers, "folder": str(folder.path) if folder else ""},
    )


def _prepare_public(
    experiment: Experiment, clients: Population, cache: Path, progress: Progress
) -> None:
    """Build the server's own corpus, if it has one, where its progress is shown."""
    if algorithm_of(experiment).imitated:
        open_public_corpus(experiment, clients.vocabulary(), cache, progress)


def _opened(experiment: Experiment, cache: Path, corpus: Corpus | None) -> Population:
    return open_population(prepare_for(experiment, cache, silent, corpus))


def _check_processor(experiment: Experiment, *, remote: bool) -> None:
    """Refuse a precision that this processor lacks, and products unless nodes run elsewhere."""
    Products(experiment.client)
    if not remote:
        check_processor(experiment.client)


def _check_remote(engine: str, workers: int, corpus: Corpus | None) -> None:
    """Refuse what concerns nodes on this machine."""
    if workers != 1:
        raise UserError(
            f"workers = {workers} has no effect with engine = {engine!r}, whose nodes run elsewhere"
        )
    if corpus:
        raise UserError(
            f"a corpus in memory cannot be used with engine = {engine!r}: the nodes have "
            "populations of their own"
        )


def _check_importable(experiment: Experiment, engine: str, workers: int) -> None:
    """Refuse processes that would have to import a model that only this one has."""
    path = experiment.model.architecture
    if is_given(path):
        given_factory(path)
        if workers > 1 or engine != USUAL:
            what = f"workers = {workers}" if engine == USUAL else f"engine = {engine}"
            instead = "workers=1" if engine == USUAL else f"engine={USUAL}"
            raise UserError(
                f"{what} is not allowed with a model that other processes cannot import; use "
                f"{instead}, or put {shown(path)} into a separate file, such as my_model.py, and "
                f"set model.architecture to my_model:{shown(path)}"
            )


def _check_size(experiment: Experiment, description: Description, workers: int) -> None:
    """Refuse a built-in model for which this machine has too little memory."""
    if not experiment.model.is_imported:  # the size of a user's model is known to its code only
        layout = build_model(experiment, description.vocabulary_size).layout
        check_footprint(experiment, layout.size, workers)


def _check_workers(workers: int, experiment: Experiment) -> None:
    useful = max(experiment.server.largest_cohort, experiment.server.evaluation_clients)
    if not 1 <= workers <= useful:
        raise UserError(
            f"workers = {workers} is not allowed: at least 1 is needed, and more than the "
            f"{useful} clients of a cohort or an evaluation are useless"
        )


def _named(experiment: Experiment, vocabulary: int, flat: NDArray[np.float32]) -> Parameters:
    # The size is the summary's, because the population may be gone from the cache by now.
    return all_parameters(build_model(experiment, vocabulary), torch.from_numpy(flat))
