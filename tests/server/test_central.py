"""Central training against a plain loop over the pooled examples, and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsi import Experiment, UserError
from fedsi.data.batches import trim
from fedsi.learning.pooled import PooledTrainer, pooled_batches
from fedsi.messages import TRAINING_COLUMNS, Outcome
from fedsi.models.build import initial_parameters
from fedsi.seeds import Purpose, generator
from fedsi.tasks import next_word
from simulations import simulate
from tests.fedsi.learning.test_block import EXPERIMENT, HEALTHY, Faulty
from tests.slow_federated import SlowClients, relative_distance

CENTRAL: dict[str, Any] = {
    "algorithm.name": "central",
    "server.optimizer": "sgd",
    "server.learning_rate": 1.0,
}
ADAMW: dict[str, Any] = {
    "client.optimizer": "adamw",
    "client.learning_rate": 0.01,
    "client.adaptivity": 1e-3,
    "client.weight_decay": 0.1,
}
SMALL = Experiment(
    data={
        "corpus": "synthetic",
        "population": 60,
        "vocabulary_size": 100,
        "max_examples_per_client": 9,
    },
    model={"embedding_size": 8, "hidden_size": 12},
    client={"learning_rate": 0.5, "batch_size": 7},
    server={"rounds": 3, "cohort_size": 4, "evaluation_clients": 4, "evaluate_every": 2},
).updated(CENTRAL)


def slow_run(experiment: Experiment, cache: Path) -> tuple[Tensor, Tensor]:
    """Train a learner by torch.optim on the pooled examples; return its start and its end."""
    clients, client = SlowClients(experiment, cache), experiment.client
    model, population = clients.model, clients.population
    start = clients.start()
    leaf = start.clone().requires_grad_()
    optimizer: torch.optim.Optimizer
    if client.optimizer == "sgd":
        optimizer = torch.optim.SGD([leaf], lr=client.learning_rate)
    else:
        optimizer = torch.optim.AdamW(
            [leaf], lr=client.learning_rate, eps=client.adaptivity, weight_decay=0.1
        )
    for number in range(1, experiment.server.rounds + 1):
        rows = []
        for member in clients.cohort(number):
            examples = population.examples(member)
            order = generator(experiment.seed, Purpose.TRAINING_ORDER, number, member)
            rows += list(examples[order.permutation(len(examples))[:9]])
        order = generator(experiment.seed, Purpose.POOLED_ORDER, number)
        for _ in range(client.epochs):
            places = order.permutation(len(rows))
            for first in range(0, len(places), client.batch_size):
                chosen = np.array([rows[k] for k in places[first : first + client.batch_size]])
                batch = next_word.batch(trim(chosen))
                named = model.layout.views(leaf)
                inputs = torch.from_numpy(batch.inputs).long()
                logits = model.logits(named, model.features(named, inputs))
                losses = torch.nn.functional.cross_entropy(
                    logits.mT, torch.from_numpy(batch.targets).long(), reduction="none"
                )
                optimizer.zero_grad()
                losses[torch.from_numpy(batch.asked)].mean().backward()
                optimizer.step()
    return start, leaf.detach()


def flat(parameters: Any) -> Tensor:
    return torch.cat([value.flatten() for value in parameters.values()]).double()


@pytest.mark.parametrize("changes", [{}, {**ADAMW, "client.epochs": 2}])
def test_equals_a_plain_loop_whose_optimizer_goes_on(changes: dict[str, Any], cache: Path) -> None:
    experiment = SMALL.updated(changes)
    start, expected = slow_run(experiment, cache)
    found = flat(simulate(experiment, cache=cache).parameters)
    assert relative_distance(found, expected, start) < 1e-4


def test_the_bits_do_not_depend_on_workers_nor_on_an_interruption(
    cache: Path, tmp_path: Path
) -> None:
    experiment = SMALL.updated(ADAMW)
    whole = simulate(experiment, cache=cache).summary
    assert simulate(experiment, workers=2, cache=cache).summary.model_sha256 == whole.model_sha256
    assert whole.clients_trained == 12
    assert (whole.download_bytes, whole.upload_bytes) == (0, 0)

    def stop(_: Experiment, record: Any) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(experiment, out=tmp_path / "run", cache=cache, on_round=stop)
    resumed = simulate(experiment, out=tmp_path / "run", cache=cache, resume=True)
    assert resumed.summary.model_sha256 == whole.model_sha256


def test_clients_are_counted_and_those_that_fail_are_left_out() -> None:
    experiment = EXPERIMENT.updated({**CENTRAL, "client.epochs": 2, "client.max_steps": 5})
    trainer = PooledTrainer(experiment, Faulty(), lambda _: None)
    start = initial_parameters(trainer.model, 0)
    found = trainer.train(start, [1, 2, 3, 5], 1, np.zeros(0, np.float32))
    columns = dict(zip(TRAINING_COLUMNS, found.rows.T, strict=True))
    aggregated, failed = float(Outcome.AGGREGATED), float(Outcome.RAISED)
    assert columns["outcome"].tolist() == [aggregated, failed, aggregated, aggregated]
    assert columns["examples"].sum() <= 5 * experiment.client.batch_size
    assert columns["weight"].tolist() == columns["examples"].tolist()
    assert not found.rows[2, 1:].any()  # it has no example
    assert not np.array_equal(found.parameters, start.numpy())


def test_a_learner_that_diverges_leaves_the_model_as_it_was() -> None:
    experiment = EXPERIMENT.updated({**CENTRAL, "client.learning_rate": 1e30})
    trainer = PooledTrainer(experiment, HEALTHY, lambda _: None)
    start = initial_parameters(trainer.model, 0)
    found = trainer.train(start, [0, 1], 1, np.zeros(0, np.float32))
    assert found.rows[:, 0].tolist() == [float(Outcome.NOT_FINITE)] * 2
    assert np.array_equal(found.parameters, start.numpy())


def test_an_epoch_has_every_example_once() -> None:
    batches = list(pooled_batches(10, 4, 2, None, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    for epoch in (batches[:3], batches[3:]):
        assert sorted(np.concatenate(epoch)) == list(range(10))
    assert len(list(pooled_batches(10, 4, 2, 5, np.random.default_rng(0)))) == 5
    assert list(pooled_batches(0, 4, 2, None, np.random.default_rng(0))) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"server.optimizer": "adam"},
            "has one learner, .* set server.optimizer=sgd and serv",
        ),
        ({"server.learning_rate": 0.5}, "set server.optimizer=sgd and server.learning_rate=1"),
        ({"server.schedule": "cosine"}, "leave server.schedule and server.weight_decay out"),
        ({"server.weight_decay": 0.1}, "leave server.schedule and server.weight_decay out"),
        (
            {
                "privacy.mechanism": "gaussian",
                "privacy.noise_multiplier": 1.0,
                "server.sampling": "poisson",
                "server.averaging": "uniform",
            },
            "so there are no updates for privacy.mechanism=gaussian to clip",
        ),
        (
            {"client.example_noise_multiplier": 1.0, "server.averaging": "uniform"},
            "leave client.example_noise_multiplier out",
        ),
    ],
)
def test_refuses_what_it_has_not(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        SMALL.updated(changes)
