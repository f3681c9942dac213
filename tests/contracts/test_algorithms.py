"""Contract of all algorithms in the table; a new entry is tested automatically."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsi import Experiment, UserError
from fedsi.data.public_corpus import open_public_corpus
from fedsi.experiment import AlgorithmSettings
from fedsi.learning.algorithms import fed_avg
from fedsi.learning.algorithms.algorithm import (
    UPDATE,
    Algorithm,
    Broadcast,
    Cohort,
    Contribution,
    LocalRun,
    Pull,
    Vector,
    Vectors,
)
from fedsi.learning.algorithms.imitation import PUBLIC_KEYS
from fedsi.learning.algorithms.table import ALGORITHMS, KEYS, algorithm_keys
from fedsi.learning.block import BlockTrainer
from fedsi.models.build import initial_parameters
from fedsi.sums.fixed_point import decode
from simulations import simulate
from simulations.finished_run import open_run
from tests.slow_distillation import (
    logits_in_float64,
    mean_of,
    slow_distillation,
    write_public_corpus,
)
from tests.slow_federated import SlowClients, relative_distance
from tests.test_docs import fenced

OWN = "page_of_algorithms:ALGORITHM"
"""The algorithm of the documentation, as a user's own."""
PLANTED = "planted"
"""An algorithm of this test that uses all that the interface has."""
UNIFORM = {"server.averaging": "uniform"}
CHANGES: dict[str, dict[str, Any]] = {
    "scaffold": UNIFORM,
    "median": UNIFORM,
    "trimmed_mean": {**UNIFORM, "algorithm.trim": 0.3},  # 1 of 4 clients on each side
}
"""What entries need that is not the default."""
EXAMPLE: dict[str, Any] = {
    "mu": 0.3,
    "state_limit": 7.0,
    "trim": 0.25,
    "memory_limit": 1.0,
    "teacher": "results/first",
    "teacher_sha256": "0" * 64,
    "temperature": 2.0,
    "public_corpus": "public.jsonl",
    "distillation_every": 2,
    "distillation_steps": 3,
    "distillation_batch_size": 7,
    "distillation_optimizer": "sgd",
    "distillation_learning_rate": 0.5,
}
"""A value of each key that is not its default."""
FEDERATED = [name for name in ALGORITHMS if not ALGORITHMS[name].pools]
"""Entries whose functions are called; central training has tests of its own."""
CLOSE = 2e-5
"""Relative distance of models trained in float32 and in float64."""


def _pull(_settings: AlgorithmSettings, given: Broadcast) -> Pull:
    return Pull(0.2, 0.05 * given.sent["drift"] + 0.01 * given.kept["times"] - 0.2 * given.start)


def _finish(_settings: AlgorithmSettings, given: Broadcast, local: LocalRun) -> Contribution:
    moved = (local.trained - given.start) / np.float32(max(1, local.steps) * local.learning_rate)
    returned = {"drift": moved, "size": np.full_like(moved, local.steps)}
    return Contribution(0.5 * moved, returned, {"times": given.kept["times"] + 1})


def _combine(
    _settings: AlgorithmSettings, state: Vectors, means: Vectors, cohort: Cohort
) -> tuple[Vector, Vectors]:
    share = np.float32(cohort.clients / cohort.population)
    return means[UPDATE] + 0.01 * means["size"], {"drift": state["drift"] + share * means["drift"]}


ENTRY = Algorithm(
    _pull, _finish, _combine, sent=("drift",), returned=("drift", "size"), kept=("times",)
)


@pytest.fixture(scope="module", autouse=True)
def _imitated(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[None]:
    """Give entries that imitate a public corpus and, some of them, a teacher."""
    folder = tmp_path_factory.mktemp("imitated")
    changes = {"model.architecture": "gru", "server.rounds": 1}
    simulate(small("fed_avg").updated(changes), out=folder / "run", cache=cache)
    before = dict(CHANGES)
    given = {f"algorithm.{key}": EXAMPLE[key] for key in PUBLIC_KEYS}
    given["algorithm.public_corpus"] = str(write_public_corpus(folder))
    for name in ALGORITHMS:
        if what := ALGORITHMS[name].imitated:
            teacher = {"algorithm.teacher": str(folder / "run")} if what == "teacher" else {}
            CHANGES[name] = {**UNIFORM, **given, **teacher}
    yield
    CHANGES.clear()
    CHANGES.update(before)


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the file of the page on algorithms."""
    (code,) = fenced("docs/add-an-algorithm.md", "python")
    assert len(code.splitlines()) < 40
    folder = tmp_path_factory.mktemp("own")
    (folder / "page_of_algorithms.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "page_of_algorithms", raising=False)
    return OWN


@pytest.fixture(params=[*FEDERATED, PLANTED, OWN])
def algorithm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, own: str) -> str:
    module = ModuleType("planted_algorithm")
    module.ALGORITHM = ENTRY  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "planted_algorithm", module)
    monkeypatch.setitem(ALGORITHMS.entries, PLANTED, "planted_algorithm")
    return str(request.param)


def small(name: str) -> Experiment:
    """Return a small experiment with an algorithm."""
    return Experiment(
        data={"corpus": "synthetic", "population": 10, "vocabulary_size": 100},
        model={"embedding_size": 8, "hidden_size": 12},
        client={"learning_rate": 0.5, "max_steps": 3},
        server={
            "rounds": 3, "cohort_size": 4, "evaluation_clients": 1, "evaluate_every": 2,
            "optimizer": "sgd", "learning_rate": 1.0,
        },
    ).updated({"algorithm.name": name, **CHANGES.get(name, {})})  # fmt: skip


def as_numpy(vector: Tensor) -> Vector:
    return vector.numpy().astype(np.float32)


def slow_run(experiment: Experiment, cache: Path) -> tuple[Tensor, Tensor]:
    """Apply an algorithm's functions client by client; return the first and the last parameters."""
    entry, settings = ALGORITHMS[experiment.algorithm.name], experiment.algorithm
    clients = SlowClients(experiment, cache)
    theta = first = clients.start()
    kept: dict[int, Vectors] = {}
    state: Vectors = {name: np.zeros(len(theta), np.float32) for name in entry.sent}
    for number in range(1, experiment.server.rounds + 1):
        cohort = clients.cohort(number)
        total = {name: torch.zeros_like(theta) for name in (UPDATE, *entry.returned)}
        weights, updates = 0.0, list[Vector]()
        for client in cohort:
            none = {name: np.zeros(len(theta), np.float32) for name in entry.kept}
            given = Broadcast(as_numpy(theta), state, kept.get(client, none))
            pull = entry.pull(settings, given)

            def added(now: Tensor, pull: Pull = pull) -> Tensor:
                vector = 0.0 if pull.vector is None else torch.from_numpy(pull.vector).double()
                return pull.strength * now + vector

            trained, steps = clients.train(client, number, theta, added)
            local = LocalRun(as_numpy(trained), steps, experiment.client.learning_rate)
            found = entry.finish(settings, given, local)
            kept[client] = found.kept
            update = trained - theta if found.update is None else torch.from_numpy(found.update)
            updates.append(as_numpy(update))
            weight = clients.weight(client, number)
            weights += weight
            for key, vector in {UPDATE: update.numpy(), **found.returned}.items():
                total[key] += weight * torch.from_numpy(vector).double()
        means = {key: as_numpy(vector / weights) for key, vector in total.items()}
        if entry.aggregate:
            means[UPDATE] = SLOWLY[experiment.algorithm.name](settings, np.array(updates))
        facts = Cohort(number, len(cohort), clients.training_clients)
        moved, state = entry.combine(settings, state, means, facts)
        before, theta = theta, theta + torch.from_numpy(moved).double()
        if entry.imitated and number % settings.distillation_every == 0:
            models = [before + torch.from_numpy(update).double() for update in updates]
            theta = slowly_imitated(clients, cache, theta, models, number)
    return first, theta


def slowly_imitated(
    clients: SlowClients, cache: Path, theta: Tensor, models: list[Tensor], number: int
) -> Tensor:
    """Distil the teacher or the clients' models as ``Algorithm.imitated`` says."""
    experiment, model = clients.experiment, clients.model
    public = open_public_corpus(experiment, clients.population.vocabulary(), cache)
    ensemble = [logits_in_float64(model, one) for one in models]
    if ALGORITHMS[experiment.algorithm.name].imitated == "teacher":
        run = open_run(Path(str(experiment.algorithm.teacher)))
        ensemble = [logits_in_float64(run.trained.model, run.flat.double())]
    return slow_distillation(experiment, public, model, theta, mean_of(ensemble), number)


def slow_trimmed_mean(settings: AlgorithmSettings, updates: Vector) -> Vector:
    left_out = int(settings.trim * len(updates) + 1e-9)
    columns = [sorted(column)[left_out : len(updates) - left_out] for column in updates.T.tolist()]
    return np.array([sum(column) / len(column) for column in columns], np.float32)


SLOWLY = {
    "fed_df": lambda _, updates: updates.astype(np.float64).mean(axis=0).astype(np.float32),
    "median": lambda _, updates: np.median(updates.astype(np.float64), axis=0).astype(np.float32),
    "trimmed_mean": slow_trimmed_mean,
}
"""Obvious twins of the functions that replace the mean."""


def flat(parameters: Any) -> Tensor:
    return torch.cat([value.flatten() for value in parameters.values()]).double()


@pytest.mark.parametrize(
    ("architecture", "clip"), [("si_cifg", None), ("si_cifg", 0.05), ("gru", None)]
)
def test_a_run_does_what_the_functions_say(
    algorithm: str, architecture: str, clip: float | None, cache: Path
) -> None:
    changes = {"model.architecture": architecture, "client.gradient_clip": clip or "none"}
    experiment = small(algorithm).updated(changes)
    start, expected = slow_run(experiment, cache)
    found = flat(simulate(experiment, cache=cache).parameters)
    assert relative_distance(found, expected, start) < CLOSE


RELATED = {"fed_avg", "fed_prox", "trimmed_mean", "server_distillation", OWN}


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    "name",
    # Those of fed_avg are held to each other by many other tests; the others have a quick relative
    # that sends, keeps and aggregates as much.
    [pytest.param(n, marks=pytest.mark.slow if n in RELATED else ()) for n in [*FEDERATED, OWN]],
)
def test_the_bits_do_not_depend_on_workers_nor_on_an_interruption(
    name: str, cache: Path, tmp_path: Path
) -> None:
    experiment = small(name)
    whole = simulate(experiment, cache=cache).summary.model_sha256
    assert simulate(experiment, workers=2, cache=cache).summary.model_sha256 == whole

    def stop(_: Experiment, record: Any) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(experiment, out=tmp_path / "run", cache=cache, on_round=stop)
    resumed = simulate(experiment, out=tmp_path / "run", cache=cache, resume=True)
    assert resumed.summary.model_sha256 == whole


def test_keys_without_effect_are_refused(algorithm: str) -> None:
    keys = algorithm_keys(algorithm)
    assert set(EXAMPLE) == KEYS
    assert set(EXAMPLE) == set(AlgorithmSettings.model_fields) - {"name"}
    for key, value in EXAMPLE.items():
        if key not in keys:
            with pytest.raises(UserError, match=rf"^algorithm\.{key}=.* has no effect with .*="):
                small(algorithm).updated({f"algorithm.{key}": value})
    used = small("fed_prox").updated({"algorithm.mu": EXAMPLE["mu"]})
    other = used.updated({"algorithm.name": algorithm, **CHANGES.get(algorithm, {})})
    assert ("mu" in keys) == (other.algorithm.mu == EXAMPLE["mu"])


def test_a_mechanism_is_refused_unless_the_clip_norm_is_the_sensitivity(
    algorithm: str, cache: Path
) -> None:
    changes = {
        "server.sampling": "poisson",
        "server.averaging": "uniform",
        "privacy.mechanism": "gaussian",
        "privacy.noise_multiplier": 1e-3,
        "privacy.clip_norm": 0.01,
    }
    entry = ALGORITHMS[algorithm]
    if entry.returned or entry.aggregate:
        reason = r"also return .*, which no epsilon covers|every client's update at the server"
        with pytest.raises(UserError, match=rf"({reason}).*; use algorithm.name=fed_avg or fed_p"):
            small(algorithm).updated(changes)
        return
    experiment = small(algorithm).updated(changes)
    trainer = BlockTrainer(experiment, SlowClients(experiment, cache).population)
    start = initial_parameters(trainer.model, 0)
    sums = np.zeros(len(start), np.int64)
    trainer.train(start, [0], 1, sums, clip_norm=0.01)
    assert 0.009 < np.linalg.norm(decode(sums)) <= 0.01


def test_an_unknown_algorithm_is_refused_with_the_nearest() -> None:
    sentence = (
        r"algorithm.name = 'fedavg' is not allowed: did you mean fed_avg\? expected one of "
        r".*distillation, .*fed_df, or the import path of an Algorithm of yours"
    )
    with pytest.raises(UserError, match=sentence):
        Experiment(algorithm={"name": "fedavg"})


FAULTS: dict[str, Callable[[Algorithm], Algorithm]] = {
    "no pull": lambda entry: replace(entry, pull=fed_avg.pull),
    "half the vector": lambda entry: replace(
        entry,
        pull=lambda *given: replace(
            entry.pull(*given), vector=np.float32(0.5) * np.asarray(entry.pull(*given).vector)
        ),
    ),
    "nothing kept": lambda entry: replace(
        entry, finish=lambda *given: replace(entry.finish(*given), kept={"times": given[1].start})
    ),
    "twice the returned": lambda entry: replace(
        entry,
        finish=lambda *given: replace(
            entry.finish(*given),
            returned={name: 2 * one for name, one in entry.finish(*given).returned.items()},
        ),
    ),
    "nothing sent": lambda entry: replace(
        entry,
        combine=lambda *given: (
            entry.combine(*given)[0],
            {name: 0 * one for name, one in entry.combine(*given)[1].items()},
        ),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(
    fault: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The faults differ from the reference by far more than the tolerance."""
    module = ModuleType("planted_algorithm")
    monkeypatch.setitem(sys.modules, "planted_algorithm", module)
    monkeypatch.setitem(ALGORITHMS.entries, PLANTED, "planted_algorithm")
    module.ALGORITHM = ENTRY  # type: ignore[attr-defined]
    start, expected = slow_run(small(PLANTED), cache)
    module.ALGORITHM = FAULTS[fault](ENTRY)  # type: ignore[attr-defined]
    found = flat(simulate(small(PLANTED), cache=cache).parameters)
    assert relative_distance(found, expected, start) > 50 * CLOSE
