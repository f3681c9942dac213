"""The round loop: sample a cohort, train it, aggregate, step the server optimizer, evaluate."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.client_states import Rounds
from fedsi.data.heldout import heldout_sample
from fedsi.data.population import Description
from fedsi.experiment import Experiment
from fedsi.learning.algorithms.algorithm import UPDATE, Cohort
from fedsi.learning.algorithms.table import ALGORITHMS, algorithm_of
from fedsi.learning.algorithms.user_algorithm import try_algorithm
from fedsi.learning.server_optimizers.optimizer import RoundUpdate, ServerOptimizer, take_step
from fedsi.learning.server_optimizers.optimizer import State as OptimizerState
from fedsi.learning.server_optimizers.table import optimizer_of
from fedsi.messages import FAILED, REJECTED, Outcome
from fedsi.models.build import build_model, initial_parameters
from fedsi.privacy.participation import Participations, counted, none_yet
from fedsi.seeds import Seed
from fedsi.tasks.table import task_of
from server.aggregation import Aggregate, Extras, evaluate_clients, train_cohort
from server.central import MEMORY, initial_memory, train_pooled
from server.cohorts.availability import Trace
from server.cohorts.canaries import to_train, with_canaries
from server.cohorts.sampling import Draw, draw_cohort
from server.differential_privacy import Privacy, PrivacyState, clip_norm_of
from server.endings import Course, ending
from server.nodes import Hosting, NodesError
from server.repeats import lacking, trained_with_repeats
from server.secure_aggregation import masked_round, unmasked


@dataclass(frozen=True)
class ServerState:
    """Everything that a round needs from the rounds before it. Replaced whole, never modified."""

    round_number: int
    parameters: NDArray[np.float32]
    optimizer: OptimizerState
    privacy: PrivacyState = field(default_factory=dict)
    """Empty for a run without privacy."""
    participations: Participations | None = None
    """Participations of the training clients; None for a run without privacy of clients or
    examples."""
    algorithm: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """The server's vectors of the algorithm, ``[parameters]`` each, in the order of
    ``Algorithm.sent``."""
    state_rounds: Rounds | None = None
    """The round of what each training client keeps, 0 for nothing yet; None if the algorithm's
    clients keep nothing."""


@dataclass(frozen=True)
class RoundRecord:
    """The record of a finished round: one row of ``rounds.csv``."""

    round: int
    """Counted from 1; 0 for the model before any training, which is only evaluated."""
    train_loss: float
    """Mean loss in nats per target token, over the aggregated clients with finite loss, before the
    local step that used it; NaN if there are none."""
    clients: int
    """Clients whose update was aggregated."""
    rejected: int
    """Clients whose update was not finite, out of range or above the norm bound."""
    failed: int
    """Clients that could not be trained, or whose node failed."""
    dropped: int
    """Clients that were drawn but did not report in time; they were not trained."""
    tokens: int
    train_seconds: float
    evaluation_seconds: float = 0.0
    clip_norm: float = math.inf
    """Largest L2 norm of an update; infinite without clipping."""
    clipped: int = 0
    """Clients whose update was clipped."""
    steps: int = 0
    """Local steps of the aggregated clients."""
    clipped_steps: int = 0
    """Local steps whose gradient ``client.gradient_clip`` or ``client.relative_clip`` clipped."""
    epsilon: float = math.inf
    """Privacy cost of all rounds so far; infinite without privacy. The other columns are the
    simulator's view: they are not private and not covered by epsilon."""
    heldout: Mapping[str, float] | None = None
    """Metrics of the held-out clients; None in rounds without evaluation."""
    unevaluated: int = 0
    """Held-out clients missing from the metrics because they or their node failed."""
    lost: int = 0
    """Clients of the cohort, including canaries, without a reply: each counts as failed, although
    it might not fail another time."""
    not_finite: int = 0
    """Rejected clients whose update was not finite. This column and the next seven count the
    rejected and the failed clients by kind; see ``fedsi.messages.Outcome``."""
    out_of_range: int = 0
    above_bound: int = 0
    raised: int = 0
    """Failed clients whose training raised an exception."""
    wrong_shape: int = 0
    too_slow: int = 0
    """Failed clients without a reply in time."""
    process_ended: int = 0
    node_failed: int = 0
    repeats: int = 0
    """Repeats of the round because too few clients contributed; the other columns are those of the
    last attempt, except the seconds."""
    download_bytes: int = 0
    """Bytes that all drawn clients would receive: the trained parameters and the algorithm's
    vectors, as float32."""
    upload_bytes: int = 0
    """Bytes that the trained clients would send: their update and the vectors that they return."""
    ended: str = ""
    """Reason why the run ended with this round: a key or an event of ``server.endings``."""

    @property
    def losses(self) -> dict[str, int]:
        """The number of contributions lost to each kind that happened, by the column's name."""
        names = (kind.name.lower() for kind in sorted(REJECTED | FAILED))
        return {name: getattr(self, name) for name in names if getattr(self, name)}


Observer = Callable[[Experiment, RoundRecord], bool | None]
"""Called after each round; the run stops if it returns True."""


def initial_server_state(
    experiment: Experiment, description: Description, private: Privacy | None = None
) -> ServerState:
    """Return the state before the first round, a pure function of the seed."""
    model = build_model(experiment, description.vocabulary_size)
    parameters = initial_parameters(model, experiment.seed).numpy()
    size, algorithm = len(parameters), algorithm_of(experiment)
    if ALGORITHMS.is_own(experiment.algorithm.name):
        try_algorithm(experiment, size)
    return ServerState(
        0,
        parameters,
        optimizer_of(experiment.server).initial_state(experiment.server, size),
        private.initial_state(size) if private else {},
        _no_participations(experiment, description, private),
        {MEMORY: initial_memory(experiment, size)}
        if algorithm.pools
        else {name: np.zeros(size, np.float32) for name in algorithm.sent},
        np.zeros(description.training_clients, np.int32) if algorithm.kept else None,
    )


def _no_participations(
    experiment: Experiment, description: Description, private: Privacy | None
) -> Participations | None:
    if private:
        return private.no_participations()
    if experiment.client.example_noise_multiplier is not None:
        return none_yet(description.training_clients)
    return None


def evaluated_clients(experiment: Experiment, description: Description) -> NDArray[np.int64]:
    """Return the held-out clients that the global model is evaluated on."""
    return heldout_sample(description, experiment.server.evaluation_clients)


def rounds_to_run(experiment: Experiment, private: Privacy | None) -> int:
    """Return the largest number of rounds of a run, which a budget of epsilon may reduce."""
    return private.affordable_rounds() if private else experiment.server.rounds


def run_rounds(
    grid: Grid,
    hosts: Callable[[], Hosting],
    experiment: Experiment,
    description: Description,
    trace: Trace | None,
    state: ServerState,
    private: Privacy | None = None,
    *,
    seed: Seed,
    course: Course | None = None,
    states: str = "",
) -> Iterator[tuple[ServerState, RoundRecord]]:
    """Run the remaining rounds, until the last one or until something ends the run before.

    A round with an empty cohort steps the server optimizer with a zero update, or with noise.

    Args:
        grid: Flower's connection to the nodes.
        hosts: Returns the connected nodes; called before each attempt and each evaluation.
        experiment: The configuration.
        description: The population's description.
        trace: The clients' availability, if the experiment has a trace.
        state: The state after the rounds before.
        private: The run's privacy, if it has any.
        seed: Seed of everything that decides who takes part: the experiment's, or a secret.
        course: The course of the rounds before.
        states: The folder of what clients keep; empty if they keep nothing.

    Yields:
        After each round the new state and the round's record.

    Raises:
        NodesError: Too few clients contributed to every attempt of a round.
        ParticipationError: A cohort violates the accounted plan of a private run.
    """
    server = experiment.server
    population = with_canaries(experiment, description.training_clients)
    course = course or Course()
    rounds = rounds_to_run(experiment, private)
    optimizer, pools = optimizer_of(server), algorithm_of(experiment).pools
    for number in range(state.round_number + 1, rounds + 1):
        started = time.perf_counter()
        clip_norm = clip_norm_of(state.privacy)
        cohort = draw_cohort(experiment, population, trace, number, seed)
        if state.participations:
            admit = private.admitted if private else counted
            admitted = admit(state.participations, number, cohort.reporting)
            state = replace(state, participations=admitted)
        members, canaries = to_train(experiment, description.training_clients, cohort.reporting)
        clients = np.concatenate([members, canaries])
        repeats = 0
        if pools:
            start, memory = state.parameters, state.algorithm[MEMORY]
            trained, parameters, memory = train_pooled(
                grid, hosts(), experiment, start, memory, members, number
            )
            if missing := lacking(experiment, len(members), trained):
                raise NodesError(f"{missing} in round {number}; see the log above")
            state = replace(
                state, round_number=number, parameters=parameters, algorithm={MEMORY: memory}
            )
        else:
            train = partial(_attempt, grid, hosts, experiment, state, cohort, clients, states)
            trained, repeats = trained_with_repeats(experiment, len(members), number, train)
            state = _next_state(experiment, description, optimizer, private, state, trained)
            state = replace(state, state_rounds=_state_rounds(state, members, trained))
        record = replace(
            _record(
                number,
                cohort,
                len(members),
                trained,
                time.perf_counter() - started,
                len(state.algorithm),
            ),
            clip_norm=clip_norm,
            repeats=repeats,
            epsilon=private.cost(number).epsilon if private else math.inf,
        )
        after = course.after(record, server)
        ended = ending(experiment, description, after, record, rounds)
        if ended or number % server.evaluate_every == 0:
            # A node may have ended in the round, or another one have taken its place.
            record = evaluate_round(record, grid, hosts(), experiment, description, state)
            after = course.after(record, server)
            ended = ending(experiment, description, after, record, rounds)
        course = after
        yield state, replace(record, ended=ended)
        if ended:
            return


def _attempt(
    grid: Grid,
    hosts: Callable[[], Hosting],
    experiment: Experiment,
    state: ServerState,
    cohort: Draw,
    clients: NDArray[np.int64],
    states: str,
    attempt: int,
) -> Aggregate:
    """Train a round's cohort once; its masks are removed only if enough clients contributed."""
    there, number, clip_norm = hosts(), state.round_number + 1, clip_norm_of(state.privacy)
    masked = masked_round(experiment, cohort.asked, number, attempt)
    extras = Extras(state.algorithm, states, state.state_rounds, masked, attempt)
    trained = train_cohort(
        grid, there, experiment, state.parameters, clients, number, clip_norm, extras
    )
    # Canaries are refused with secure aggregation, so all clients are members of the cohort.
    if masked and not lacking(experiment, len(clients), trained):
        return unmasked(grid, there.nodes, experiment, masked, clients, trained, clip_norm)
    return trained


def _next_state(
    experiment: Experiment,
    description: Description,
    optimizer: ServerOptimizer,
    private: Privacy | None,
    state: ServerState,
    trained: Aggregate,
) -> ServerState:
    number = state.round_number + 1
    if private:
        released, after = private.release(state.privacy, trained, number, state.participations)
        means = {UPDATE: released}
    else:
        means, after = trained.means(), state.privacy
    cohort = Cohort(
        number, _contributors(experiment, private, trained), description.training_clients
    )
    update, vectors = algorithm_of(experiment).combine(
        experiment.algorithm, state.algorithm, means, cohort
    )
    given = RoundUpdate(state.parameters, update, number)
    with np.errstate(over="ignore", invalid="ignore"):
        parameters, kept = take_step(optimizer, experiment.server, state.optimizer, given)
    return ServerState(
        number, parameters, kept, after, state.participations, vectors, state.state_rounds
    )


def _state_rounds(
    state: ServerState, members: NDArray[np.int64], trained: Aggregate
) -> Rounds | None:
    """Return the rounds of the clients' vectors after this round, new for aggregated clients."""
    if state.state_rounds is None:
        return None
    rounds = state.state_rounds.copy()
    accepted = trained.column("outcome")[: len(members)] == Outcome.AGGREGATED
    rounds[members[accepted]] = state.round_number
    return rounds


def _contributors(experiment: Experiment, private: Privacy | None, trained: Aggregate) -> int:
    """Return the number of clients for the algorithm; in private runs the true one is secret."""
    if private:
        return experiment.server.cohort_size
    return int((trained.column("outcome") == Outcome.AGGREGATED).sum())


def _record(
    number: int, cohort: Draw, members: int, trained: Aggregate, seconds: float, sent: int
) -> RoundRecord:
    # Canaries come last and are not counted.
    trained = replace(trained, rows=trained.rows[:members])
    outcome = trained.column("outcome")
    accepted = outcome == Outcome.AGGREGATED
    kinds = {kind: int((outcome == kind).sum()) for kind in REJECTED | FAILED}
    named: dict[str, Any] = {kind.name.lower(): count for kind, count in kinds.items()}
    failed = sum(kinds[kind] for kind in FAILED)
    total = trained.total()
    dropped = cohort.drawn - len(cohort.reporting)
    message = trained.sums.size * np.dtype(np.float32).itemsize
    return RoundRecord(
        round=number,
        train_loss=float(total.loss / total.tokens_with_loss)
        if total.tokens_with_loss
        else math.nan,
        clients=int(accepted.sum()),
        rejected=sum(kinds[kind] for kind in REJECTED),
        failed=failed,
        dropped=dropped,
        tokens=int(total.tokens),
        train_seconds=seconds,
        clipped=int(total.clipped),
        steps=round(total.steps),
        clipped_steps=round(total.clipped_steps),
        lost=trained.lost,
        **named,
        download_bytes=message * (1 + sent) * (members + dropped),
        upload_bytes=message * (1 + len(trained.returned)) * (members - failed),
    )


def untrained_round(
    grid: Grid,
    hosting: Hosting,
    experiment: Experiment,
    description: Description,
    state: ServerState,
) -> RoundRecord:
    """Return the record of round 0: the metrics of the model before any training.

    Nothing has been released, so it costs no privacy.

    Raises:
        NodesError: No held-out client could be evaluated.
    """
    nothing = RoundRecord(
        round=0,
        train_loss=math.nan,
        clients=0,
        rejected=0,
        failed=0,
        dropped=0,
        tokens=0,
        train_seconds=0.0,
        epsilon=math.inf if experiment.privacy.mechanism == "none" else 0.0,
    )
    return evaluate_round(nothing, grid, hosting, experiment, description, state)


def evaluate_round(
    record: RoundRecord,
    grid: Grid,
    hosting: Hosting,
    experiment: Experiment,
    description: Description,
    state: ServerState,
) -> RoundRecord:
    """Return a round's record with the metrics of the model that it left.

    Raises:
        NodesError: No held-out client could be evaluated.
    """
    started = time.perf_counter()
    clients = evaluated_clients(experiment, description)
    most, parameters = description.heldout_examples, state.parameters
    rows = evaluate_clients(grid, hosting, experiment, parameters, clients, record.round, most)
    return replace(
        record,
        heldout=task_of(experiment).metrics(rows),
        unevaluated=len(clients) - len(rows),
        evaluation_seconds=time.perf_counter() - started,
    )
