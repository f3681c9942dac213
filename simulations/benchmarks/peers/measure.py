"""Comparison of two peers: they take turns, one round each."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsi.data.batches import training_batches
from fedsi.data.corpus import Progress
from fedsi.data.population import Population
from fedsi.data.prepare import open_population, prepare
from fedsi.data.protocol import PAD, Tokens
from fedsi.experiment import Experiment
from fedsi.models.build import build_model
from server.cohorts.sampling import draw_cohort
from server.rounds import initial_server_state
from simulations.benchmarks.lockstep import contestant
from simulations.benchmarks.machine import BenchmarkError
from simulations.benchmarks.peers.fedsi_peer import FEDSI, NUDGED
from simulations.engines.processes import own_command

TRANSFORMERS = {"transformer", "si_transformer"}
ARCHITECTURES = ("cifg", "si_cifg", *sorted(TRANSFORMERS))
"""Architectures with a natural module."""

SIZES = {
    "0.05M": (1_000, 24, 32),
    "0.34M": (4_000, 36, 100),
    "1.3M": (10_000, 52, 262),
    "3.5M": (10_000, 96, 670),
    "5M": (10_000, 128, 820),
}
"""Words, embedding size and hidden size of each recurrent model."""

TRANSFORMER_SIZES = {
    "0.05M": (1_000, 20, 2, 2, 80),
    "0.34M": (4_000, 36, 3, 4, 144),
    "1.3M": (10_000, 56, 4, 4, 224),
    "3.5M": (10_000, 128, 3, 8, 1024),
    "5M": (10_000, 160, 6, 8, 640),
}
"""Words, embedding size, layers, heads and feed-forward size of each Transformer. The size 3.5M is
that of the preset ``stackoverflow_transformer``."""

LARGEST_DIFFERENCE = 1e-4
"""Difference of the final weights, relative to their change in training, that is always taken as
agreement of two float32 computations."""

ALLOWED = 4.0
"""Largest difference otherwise, in multiples of what a nudge of the start makes of it."""

SCRIPTS = {peer: Path(__file__).with_name(f"{peer}_peer.py") for peer in ("pfl", "flower")}
"""Programs run by the peers' own Pythons."""


@dataclass(frozen=True)
class PeerMeasurement:
    """One model trained by fedsi and by a peer."""

    peer: str
    architecture: str
    size: str
    parameters: int
    fedsi_clients_per_second: float
    peer_clients_per_second: float
    ratio: float
    """Median over rounds of the ratio of the peer's seconds to fedsi's."""
    difference: float
    """Difference of the final weights, relative to their change in training."""


def experiment_for(
    base: Experiment, architecture: str, size: str, cohort: int, rounds: int
) -> Experiment:
    """Return the experiment that both train: plain averaging of SGD clients."""
    return base.updated(
        {
            "model.architecture": architecture,
            **_sizes(architecture, size),
            "server.optimizer": "sgd",
            "server.learning_rate": 1.0,
            "server.rounds": rounds,
            "server.cohort_size": cohort,
            "server.evaluate_every": rounds,
            "server.evaluation_clients": 1,
        }
    )


def _sizes(architecture: str, size: str) -> dict[str, int | float | str]:
    """Return a model's sizes and step size.

    ReLU attention divides by sums that may be close to zero, and every such step amplifies the
    rounding differences of two implementations. Steps are small enough here to compare the weights.
    """
    if architecture in TRANSFORMERS:
        vocabulary, embedding, layers, heads, feedforward = TRANSFORMER_SIZES[size]
        return {
            "data.vocabulary_size": vocabulary,
            "model.embedding_size": embedding,
            "model.layers": layers,
            "model.heads": heads,
            "model.feedforward_size": feedforward,
            "model.positions": "learned",
            "client.learning_rate": 0.005,
        }
    vocabulary, embedding, hidden = SIZES[size]
    return {
        "data.vocabulary_size": vocabulary,
        "model.embedding_size": embedding,
        "model.hidden_size": hidden,
        "client.learning_rate": 0.3,
    }


def measure_peers(
    experiment: Experiment,
    size: str,
    peer: str,
    python: Path,
    folder: Path,
    cache: Path,
    tell: Progress,
) -> PeerMeasurement:
    """Train one model with both and compare times and weights.

    Args:
        experiment: The result of ``experiment_for``.
        size: Key of ``SIZES``.
        peer: Key of ``SCRIPTS``.
        python: The Python of an environment with the peer.
        folder: Folder for the peers' files.
        cache: Folder for populations.
        tell: Called to report progress.

    Raises:
        BenchmarkError: A peer died, or the weights differ.
    """
    parameters = _write_task(experiment, folder, cache, tell)
    rounds, cohort = experiment.server.rounds, experiment.server.cohort_size
    commands = {
        FEDSI: fedsi_command(folder),
        peer: [str(python), str(SCRIPTS[peer]), str(folder)],
    }
    seconds = _race(commands, folder, rounds, f"{experiment.model.architecture} {size}", tell)
    difference = relative_difference(folder, FEDSI, peer)
    if experiment.client.precision == "float32":
        _check_agreement(difference, folder, rounds, tell)
    ratios = [b / a for a, b in zip(seconds[FEDSI], seconds[peer], strict=True)]
    return PeerMeasurement(
        peer,
        experiment.model.architecture,
        size,
        parameters,
        cohort / statistics.median(seconds[FEDSI]),
        cohort / statistics.median(seconds[peer]),
        statistics.median(ratios),
        difference,
    )


def relative_difference(folder: Path, one: str, other: str) -> float:
    """Return the difference of two peers' final weights, relative to their change in training."""
    start, ours, theirs = (np.load(folder / f"{name}.npy") for name in ("start", one, other))
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs - start))


def _check_agreement(difference: float, folder: Path, rounds: int, tell: Progress) -> None:
    """Refuse weights that differ by more than two float32 computations may.

    Some models amplify rounding: ReLU attention divides by sums that may be close to zero. So
    fedsi trains the task again from weights that are nudged by about the rounding error of a
    product, and the difference that this makes is the yardstick.

    Raises:
        BenchmarkError: The weights differ by more.
    """
    if difference <= LARGEST_DIFFERENCE:
        return
    _race({NUDGED: fedsi_command(folder, NUDGED)}, folder, rounds, "checking agreement", tell)
    rounding = relative_difference(folder, NUDGED, FEDSI)
    if not difference <= ALLOWED * rounding:
        raise BenchmarkError(
            f"the weights differ by {difference:.1e} of their change in training; rounding "
            f"explains {rounding:.1e}"
        )


def fedsi_command(folder: Path, name: str = FEDSI) -> list[str]:
    """Return the command that starts fedsi on a folder read by ``fedsi_peer``.

    Args:
        folder: The folder.
        name: ``NUDGED`` to train from nudged weights; the final weights' file is named after it.
    """
    return own_command("simulations.benchmarks.peers.fedsi_peer", folder, name)


def _write_task(experiment: Experiment, folder: Path, cache: Path, tell: Progress) -> int:
    """Write weights, cohorts and batches; return the number of parameters."""
    place = prepare(experiment.data, cache, tell)
    population = open_population(place)
    description = population.description
    layout = build_model(experiment, description.vocabulary_size).layout
    visits = [
        _examples(experiment, population, client, number)
        for number in range(1, experiment.server.rounds + 1)
        for client in draw_cohort(
            experiment, description.training_clients, None, number, experiment.seed
        ).reporting.tolist()
    ]
    np.save(folder / "rows.npy", np.concatenate(visits))
    np.save(folder / "starts.npy", np.cumsum([0, *map(len, visits)]))
    np.save(folder / "start.npy", initial_server_state(experiment, description).parameters)
    settings = {
        "experiment": experiment.to_toml(),
        "population": str(place),
        "workers": 1,
        "architecture": experiment.model.architecture,
        "heads": experiment.model.heads,
        "shapes": layout.shapes,
        "rounds": experiment.server.rounds,
        "cohort": experiment.server.cohort_size,
        "batch": experiment.client.batch_size,
        "learning_rate": experiment.client.learning_rate,
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return layout.size


def _examples(
    experiment: Experiment, population: Population, client: int, round_number: int
) -> Tokens:
    """Return a client's examples in the order of fedsi's batches."""
    batches = training_batches(
        population.examples(client),
        experiment.client,
        experiment.data.max_examples_per_client,
        seed=experiment.seed,
        round_number=round_number,
        client=client,
    )
    width = experiment.data.sequence_length + 1
    padded = [np.pad(b, ((0, 0), (0, width - b.shape[1])), constant_values=PAD) for b in batches]
    return np.concatenate(padded)


def _race(
    commands: Mapping[str, Sequence[str]], folder: Path, rounds: int, name: str, tell: Progress
) -> dict[str, list[float]]:
    """Run the rounds of both in turn; return seconds per round without the first one."""
    seconds: dict[str, list[float]] = {peer: [] for peer in commands}
    with ExitStack() as stack:
        own = (FEDSI, NUDGED)
        contestants = {
            peer: stack.enter_context(
                contestant(peer, command, environment=None if peer in own else _environment(folder))
            )
            for peer, command in commands.items()
        }
        for number in range(rounds):
            for peer, one in contestants.items():
                seconds[peer].append(float(one.round()["seconds"]))
            tell(name, number + 1, rounds)
        for one in contestants.values():
            one.finish()
    return {peer: values[1:] for peer, values in seconds.items()}


def _environment(folder: Path) -> dict[str, str]:
    """Return a peer's environment: one thread, its own Python's packages, no network calls.

    Ray would otherwise run at low priority, which fedsi does not.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    flower = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    home = {"FLWR_HOME": str(folder / "home")}
    return {**inherited, "OMP_NUM_THREADS": "1", **flower, **ray, **home}
