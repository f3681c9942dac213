"""The round loop: sample a cohort, train it, aggregate, step the server optimizer, evaluate."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

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
from fedsi.learning.server_optimizers.optimizer import RoundUpdate, take_step
from fedsi.learning.server_optimizers.optimizer import State as OptimizerState
from fedsi.learning.server_optimizers.table import optimizer_of
from fedsi.messages import Outcome
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
from server.public_distillation import PublicDistillation
from server.repeats import lacking, trained_with_repeats
from server.round_record import RoundRecord, record_of
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
    public: PublicDistillation | None = None,
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
        public: The server's own training, if the algorithm has any.

    Yields:
        After each round the new state and the round's record.

    Raises:
        NodesError: Too few clients contributed to every attempt of a round.
        ParticipationError: A cohort violates the accounted plan of a private run.
    """
    loop = _Loop(grid, hosts, experiment, description, trace, private, seed, states, public)
    course = course or Course()
    rounds = rounds_to_run(experiment, private)
    for number in range(state.round_number + 1, rounds + 1):
        state, record = loop.train(state, number)
        after = course.after(record, experiment.server)
        ended = ending(experiment, description, after, record, rounds)
        if ended or number % experiment.server.evaluate_every == 0:
            # A node may have ended in the round, or another one have taken its place.
            record = evaluate_round(record, grid, hosts(), experiment, description, state)
            after = course.after(record, experiment.server)
            ended = ending(experiment, description, after, record, rounds)
        course = after
        yield state, replace(record, ended=ended)
        if ended:
            return


@dataclass(frozen=True)
class _Loop:
    """What stays the same in all rounds of a run; the fields are arguments of ``run_rounds``."""

    grid: Grid
    hosts: Callable[[], Hosting]
    experiment: Experiment
    description: Description
    trace: Trace | None
    private: Privacy | None
    seed: Seed
    states: str
    public: PublicDistillation | None

    def train(self, state: ServerState, number: int) -> tuple[ServerState, RoundRecord]:
        """Train one round; return the state after it, and its record without an evaluation."""
        started = time.perf_counter()
        training_clients, clip_norm = self.description.training_clients, clip_norm_of(state.privacy)
        population = with_canaries(self.experiment, training_clients)
        cohort = draw_cohort(self.experiment, population, self.trace, number, self.seed)
        if state.participations:
            admit = self.private.admitted if self.private else counted
            admitted = admit(state.participations, number, cohort.reporting)
            state = replace(state, participations=admitted)
        members, canaries = to_train(self.experiment, training_clients, cohort.reporting)
        if algorithm_of(self.experiment).pools:
            state, trained, repeats = *self._pooled(state, members, number), 0
        else:
            state, trained, repeats = self._federated(state, cohort, members, canaries, number)
        seconds, sent = time.perf_counter() - started, len(state.algorithm)
        record = record_of(number, cohort, len(members), trained, seconds, sent)
        epsilon = self.private.cost(number).epsilon if self.private else math.inf
        return state, replace(record, clip_norm=clip_norm, repeats=repeats, epsilon=epsilon)

    def _pooled(
        self, state: ServerState, members: NDArray[np.int64], number: int
    ) -> tuple[ServerState, Aggregate]:
        memory = state.algorithm[MEMORY]
        trained, parameters, memory = train_pooled(
            self.grid, self.hosts(), self.experiment, state.parameters, memory, members, number
        )
        if missing := lacking(self.experiment, len(members), trained):
            raise NodesError(f"{missing} in round {number}; see the log above")
        state = replace(
            state, round_number=number, parameters=parameters, algorithm={MEMORY: memory}
        )
        return state, trained

    def _federated(
        self,
        state: ServerState,
        cohort: Draw,
        members: NDArray[np.int64],
        canaries: NDArray[np.int64],
        number: int,
    ) -> tuple[ServerState, Aggregate, int]:
        """Return the new state, the aggregate, and the number of attempts before the last one."""
        train = partial(self._attempt, state, cohort, np.concatenate([members, canaries]))
        trained, repeats = trained_with_repeats(self.experiment, len(members), number, train)
        start = state.parameters
        state = _next_state(self.experiment, self.description, self.private, state, trained)
        if self.public:
            parameters = self.public.after(start, state.parameters, trained.updates, number)
            state = replace(state, parameters=parameters)
        rounds = _state_rounds(state, members, trained)
        return replace(state, state_rounds=rounds), trained, repeats

    def _attempt(
        self, state: ServerState, cohort: Draw, clients: NDArray[np.int64], attempt: int
    ) -> Aggregate:
        """Train a cohort once; its masks are removed only if enough clients contributed."""
        grid, there, experiment = self.grid, self.hosts(), self.experiment
        number, clip_norm = state.round_number + 1, clip_norm_of(state.privacy)
        masked = masked_round(experiment, cohort.asked, number, attempt)
        extras = Extras(state.algorithm, self.states, state.state_rounds, masked, attempt)
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
    given, optimizer = (
        RoundUpdate(state.parameters, update, number),
        optimizer_of(experiment.server),
    )
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
