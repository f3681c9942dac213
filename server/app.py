"""The Flower ServerApp: one experiment, from its first round or checkpoint to its summary."""

import logging
import shlex
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from fedsi.client_states import ClientStates
from fedsi.data.population import Description
from fedsi.data.vocabulary import Vocabulary, parse_vocabulary
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.experiment.data import LEARNED_VOCABULARIES
from fedsi.learning.algorithms.table import algorithm_of
from fedsi.learning.teacher import check_teacher
from fedsi.models.build import build_model
from fedsi.tasks.table import check_task, task_of
from server.client_state_disk import check_size, client_states
from server.cohort_secret import cohort_seed
from server.cohorts.availability import Trace, read_trace
from server.cohorts.canaries import with_canaries
from server.cohorts.sampling import check_cohort_size
from server.configuration import RunConfiguration
from server.differential_privacy import privacy_of
from server.nodes import Hosting, Hosts, fetch_vocabulary, find_clients
from server.observers import Observer
from server.progress import RunProgress, vector_of_named
from server.public_distillation import PublicDistillation, public_distillation
from server.round_log import log_round, rounds_shown
from server.rounds import initial_server_state
from server.runs.folder import RunFolder
from server.runs.provenance import EARLIER, differences, provenance
from server.runs.rounds_file import rows_text
from server.runs.settled import settled
from server.runs.summary import Summary
from server.secure_aggregation import refuse_between_machines
from server.update_memory import check_update_memory
from server.warm_start import WARM_START, told, warm_state

log = logging.getLogger(__name__)

RESULT, SUMMARY, ROWS, PARAMETERS = "result", "summary", "rows", "parameters"
"""Keys of the result in the context's state: a ConfigRecord and an ArrayRecord."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that Flower's run configuration describes."""
    with rounds_shown():
        serve(grid, context, RunConfiguration.from_flower(context.run_config), [log_round])


def serve(
    grid: Grid, context: Context, config: RunConfiguration, observers: Sequence[Observer] = ()
) -> None:
    """Run an experiment and store its result in the context's state.

    Args:
        grid: Flower's connection to the nodes.
        context: Receives the result.
        config: The experiment, and how to run it.
        observers: Called after each round, in this order.

    Raises:
        UserError: The experiment, its corpus or its folder cannot be used.
        NodesError: No node can serve the experiment.
        ParticipationError: Its epsilon would not hold.
    """
    folder = RunFolder(config.folder) if config.folder else None
    experiment = settled(config.experiment, folder, resume=config.resume)
    refuse_between_machines(experiment, config.engine)
    config = replace(config, experiment=experiment)
    facts = provenance(experiment, config.engine, config.workers)
    with folder.held() if folder else nullcontext():
        if folder and config.resume and (finished := _finished(folder, experiment)):
            _hand_over(context, *finished, rows_text(folder.records(), task_of(experiment).names))
            return
        if folder and config.resume:
            facts = _continued(folder, facts, other_machine=config.other_machine)
        with client_states(experiment, folder.path if folder else None) as states:
            progress, hosts = _begin(grid, config, folder, states)
            facts |= {WARM_START: progress.warm_start} if progress.warm_start else {}
            progress.provenance, progress.observers = facts, observers
            if folder:
                folder.save_provenance(facts)
            seed = cohort_seed(experiment, folder, progress.state.round_number)
            progress.run(grid, hosts.connected, seed)
            progress.personalise(grid, hosts.connected())
            progress.evaluate_grid(grid, hosts.connected())
            summary = progress.finish()
            rows = rows_text(progress.records, task_of(experiment).names)
            _hand_over(context, summary, progress.state.parameters, rows)


def _begin(
    grid: Grid, config: RunConfiguration, folder: RunFolder | None, states: ClientStates | None
) -> tuple[RunProgress, Hosts]:
    """Find the nodes, check that they can serve the experiment, and claim the folder."""
    experiment = config.experiment
    hosts = Hosts(grid, experiment)
    hosting, description = hosts.connected(), hosts.description
    check_task(experiment, description.vocabulary_size)
    public = None
    if experiment.algorithm.teacher or algorithm_of(experiment).imitated:
        words = parse_vocabulary(*fetch_vocabulary(grid, hosting.nodes, experiment))
        public = _public(experiment, words, config.cache)
    check_cohort_size(experiment, with_canaries(experiment, description.training_clients))
    trace = _trace(grid, hosting, experiment, description)
    private = privacy_of(experiment, description.training_clients, description.content_digest)
    if private:
        _warn_of_vocabulary(description)
        _warn_of_labels(experiment)
        _warn_of_weights(experiment)
    state = initial_server_state(experiment, description, private)
    check_size(experiment, description.training_clients, len(state.parameters))
    check_update_memory(experiment, len(state.parameters))
    progress = RunProgress(experiment, description, trace, private, state, folder, states, public)
    if folder and config.resume:
        # Before the claim, which makes an unfinished run of a finished one.
        folder.check_free(experiment, overwrite=False, resume=True)
        progress.check(folder)
    if folder:
        folder.claim(experiment, overwrite=config.overwrite, resume=config.resume)
        folder.save_vocabulary(*fetch_vocabulary(grid, hosting.nodes, experiment))
        if config.resume:
            progress.resume(folder)
    if experiment.model.init_from and not progress.records:
        vocabulary = fetch_vocabulary(grid, hosting.nodes, experiment)
        progress.state, progress.warm_start = warm_state(experiment, state, vocabulary)
        log.warning(told(progress.warm_start))
    if states:
        states.begin(progress.state.state_rounds)
    return progress, hosts


def _public(experiment: Experiment, words: Vocabulary, cache: Path) -> PublicDistillation | None:
    """Check the teacher, and open what the server itself trains on, if the algorithm has it."""
    if experiment.algorithm.teacher:
        check_teacher(experiment, words)
    if not algorithm_of(experiment).imitated:
        return None
    return public_distillation(experiment, words, cache)


def _warn_of_vocabulary(description: Description) -> None:
    """Warn if the vocabulary was learned from the clients that a private run protects."""
    if description.vocabulary_source in LEARNED_VOCABULARIES:
        warnings.warn(
            f"the vocabulary was learned from the training clients' text "
            f"(data.vocabulary={description.vocabulary_source}), which epsilon does not cover; "
            "set data.vocabulary=public, or name a public word list or tokenizer.json with it",
            stacklevel=2,
        )


def _warn_of_labels(experiment: Experiment) -> None:
    """Warn if the labels were chosen by how many of the protected clients have them."""
    if task_of(experiment).bound and experiment.task.label_file is None:
        warnings.warn(
            "the labels are the most frequent ones of the training clients, which epsilon does not "
            "cover; name a public list of labels with task.label_file",
            stacklevel=2,
        )


def _warn_of_weights(experiment: Experiment) -> None:
    """Warn of weights that may have been trained on the clients whom a private run protects."""
    used = {
        "the run starts from the weights of": experiment.model.init_from,
        "the server imitates the model of": experiment.algorithm.teacher,
    }
    for what, place in used.items():
        if place:
            warnings.warn(
                f"{what} {place}, and epsilon does not cover what they were trained on; they "
                "should come from public text",
                stacklevel=2,
            )


def _continued(folder: RunFolder, facts: dict[str, Any], *, other_machine: bool) -> dict[str, Any]:
    """Return the facts of a resumed run, with those of its earlier part if they differ.

    Raises:
        UserError: They differ in something that affects the bits, and this was not allowed.
    """
    before = folder.provenance()
    if before is None:
        return facts
    earlier, started = before.pop(EARLIER, []), before.get(WARM_START)
    different = differences(before, facts)
    if different and not other_machine:
        raise UserError(
            f"the run in {folder.path} would not have the bits of one that was never stopped: "
            f"{'; '.join(different)}; continue it where it began, or here anyway with: fedsi run "
            f"--resume --other-machine --out {shlex.quote(str(folder.path))}"
        )
    if different:
        earlier = [*earlier, before]
    kept = {EARLIER: earlier, WARM_START: started}
    return {**facts, **{key: value for key, value in kept.items() if value}}


def _finished(
    folder: RunFolder, experiment: Experiment
) -> tuple[Summary, NDArray[np.float32]] | None:
    """Return the summary and the parameters of a finished run; None if it is not finished."""
    folder.check_free(experiment, overwrite=False, resume=True)
    summary = folder.finished(experiment)
    if summary is None:
        return None
    layout = build_model(experiment, summary.vocabulary_size).layout
    return summary, vector_of_named(folder.model(), layout)


def _hand_over(
    context: Context, summary: Summary, parameters: NDArray[np.float32], rows: str
) -> None:
    context.state[RESULT] = ConfigRecord({SUMMARY: summary.text(), ROWS: rows})
    context.state[PARAMETERS] = ArrayRecord({PARAMETERS: Array(parameters)})


def _trace(
    grid: Grid, hosting: Hosting, experiment: Experiment, description: Description
) -> Trace | None:
    """Read the experiment's trace, if it has one; the nodes look up its clients."""
    if experiment.devices.trace is None:
        return None
    population = description.training_clients + description.heldout_clients
    find = partial(find_clients, grid, hosting, experiment, population)
    return read_trace(Path(experiment.devices.trace), find, description.training_clients)
