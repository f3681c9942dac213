"""SCAFFOLD against the algorithm of the paper, written out with autograd."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedsi import Experiment, UserError
from simulations import simulate
from tests.slow_federated import SlowClients, relative_distance

EXPERIMENT = Experiment(
    data={"corpus": "synthetic", "population": 12, "vocabulary_size": 100},
    model={"embedding_size": 8, "hidden_size": 12},
    algorithm={"name": "scaffold"},
    client={"learning_rate": 0.5, "batch_size": 8, "max_steps": 5},
    server={
        "rounds": 4,
        "cohort_size": 4,
        "optimizer": "sgd",
        "learning_rate": 1.0,
        "averaging": "uniform",
        "evaluation_clients": 1,
    },
)


def slow_scaffold(
    experiment: Experiment, cache: Path, strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the first and the last model of algorithm 1, option II."""
    clients = SlowClients(experiment, cache)
    x = first = clients.start()
    c = torch.zeros_like(x)
    c_i = [torch.zeros_like(x) for _ in range(clients.training_clients)]
    for number in range(1, experiment.server.rounds + 1):
        cohort = clients.cohort(number)
        models, changes = [], []
        for i in cohort:
            correction = strength * (c - c_i[i])
            y, steps = clients.train(i, number, x, lambda _, it=correction: it)  # type: ignore[misc]
            moved_by = steps * clients.rate(number)
            new = c_i[i] - c + (x - y) / moved_by if moved_by else c_i[i]
            changes.append(new - c_i[i])
            models.append(y)
            c_i[i] = new
        x = x + sum(y - x for y in models) / len(cohort)
        c = c + sum(changes) / clients.training_clients
    torch.testing.assert_close(c, torch.stack(c_i).mean(0))
    return first, x


@pytest.mark.parametrize(
    "changes",
    [{}, {"model.architecture": "gru", "client.gradient_clip": 0.2, "client.schedule": "cosine"}],
)
def test_equals_the_slow_algorithm(changes: dict[str, Any], cache: Path) -> None:
    experiment = EXPERIMENT.updated(changes)
    start, expected = slow_scaffold(experiment, cache)
    _, weaker = slow_scaffold(experiment, cache, strength=0.9)
    parameters = simulate(experiment, cache=cache).parameters
    found = torch.cat([value.flatten() for value in parameters.values()]).double()
    assert relative_distance(found, expected, start) < 2e-5
    assert relative_distance(found, weaker, start) > 1e-3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"server.averaging": "examples"}, "scaffold needs server.averaging=uniform"),
        ({"client.optimizer": "adamw"}, "scaffold needs client.optimizer=sgd, not adamw"),
    ],
)
def test_what_would_bias_its_control_variates_is_refused(
    changes: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        EXPERIMENT.updated(changes)
