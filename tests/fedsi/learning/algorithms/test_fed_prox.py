"""FedProx against the algorithm of the paper, written out with autograd."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedsi import Experiment, UserError
from simulations import simulate
from tests.slow_federated import SlowClients, relative_distance

MU = 0.3
EXPERIMENT = Experiment(
    data={"corpus": "synthetic", "population": 60, "vocabulary_size": 100},
    model={"embedding_size": 8, "hidden_size": 12},
    algorithm={"name": "fed_prox", "mu": MU},
    client={"learning_rate": 0.5, "epochs": 2, "batch_size": 8},
    server={"rounds": 2, "cohort_size": 4, "optimizer": "sgd", "learning_rate": 1.0},
)


def slow_fed_prox(experiment: Experiment, cache: Path, mu: float) -> tuple[Tensor, Tensor]:
    """Return the first and the last model of FedProx."""
    clients = SlowClients(experiment, cache)
    theta = first = clients.start()
    for number in range(1, experiment.server.rounds + 1):
        total, weights = torch.zeros_like(theta), 0.0
        for client in clients.cohort(number):
            start = theta.clone()
            trained, _ = clients.train(client, number, start, lambda now, at=start: mu * (now - at))  # type: ignore[misc]
            weight = clients.weight(client, number)
            total, weights = total + weight * trained, weights + weight
        theta = total / weights
    return first, theta


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"client.weight_decay": 0.1, "client.gradient_clip": 0.1},
        {"model.architecture": "transformer", "model.embedding_size": 8, "client.epochs": 1},
    ],
)
def test_equals_the_slow_algorithm(changes: dict[str, object], cache: Path) -> None:
    experiment = EXPERIMENT.updated(changes)
    start, expected = slow_fed_prox(experiment, cache, MU)
    _, other = slow_fed_prox(experiment, cache, 0.0)
    parameters = simulate(experiment, cache=cache).parameters
    found = torch.cat([value.flatten() for value in parameters.values()]).double()
    assert relative_distance(found, expected, start) < 2e-5
    assert relative_distance(found, other, start) > 1e-2


def test_a_pull_beyond_the_global_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"algorithm.mu = 2.5 .* must be less than 1"):
        EXPERIMENT.updated({"algorithm.mu": 2.5})
