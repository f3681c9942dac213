"""Suggested learning rates: the search, and the size of the step at the suggested rate."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsi.data.batches import training_batches
from fedsi.data.population import ClientExamples, Population
from fedsi.data.prepare import open_population, prepare_for
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.learning.predictions import predictions
from fedsi.learning.suggested_rate import NoRateError, rate_of_change, suggest_rate
from fedsi.models.build import build_model, initial_parameters
from fedsi.models.hidden import hidden_seen
from fedsi.seeds import Purpose, generator
from fedsi.tasks.table import task_of
from tests.own_models import Gru


@settings(max_examples=30)
@given(st.floats(1e-6, 1e6), st.floats(0.3, 3), st.floats(1e-3, 0.9), st.floats(1e-5, 1e5))
def test_the_rate_of_a_change_that_is_a_power(
    scale: float, power: float, change: float, first: float
) -> None:
    found = rate_of_change(lambda rate: (scale * rate) ** power, change, first)
    assert (scale * found) ** power == pytest.approx(change, rel=2e-3)


def test_the_lowest_rate_of_a_change_that_returns() -> None:
    found = rate_of_change(lambda rate: abs(math.sin(min(rate, 7))), 0.5, 1e-4)
    assert found == pytest.approx(math.pi / 6, rel=2e-3)


def test_a_step_that_diverges_is_too_large() -> None:
    found = rate_of_change(lambda rate: rate if rate < 1 else math.nan, 0.1, 1e6)
    assert found == pytest.approx(0.1, rel=2e-3)


@pytest.mark.parametrize("moved", [lambda _: 0.0, lambda rate: min(rate, 0.05), lambda _: 0.2])
def test_a_change_that_no_rate_gives(moved: object) -> None:
    with pytest.raises(NoRateError, match=r"0\.1 was wanted"):
        rate_of_change(moved, 0.1, 1.0)  # type: ignore[arg-type]


def opened(smoke: Experiment, cache: Path) -> Population:
    return open_population(prepare_for(smoke, cache))


@pytest.mark.parametrize(
    "changes",
    [
        {"model.architecture": "cifg"},
        {"model.architecture": "transformer", "model.layers": 3, "client.depth_rule": 1},
        {"model.architecture": "tests.own_models:Gru"},
    ],
    ids=["by hand", "depth rule", "custom model"],
)
def test_a_step_at_the_rate_changes_the_last_hidden_layer_by_the_share(
    changes: dict[str, object], smoke: Experiment, cache: Path
) -> None:
    experiment, population = smoke.updated(changes), opened(smoke, cache)
    model = build_model(experiment, population.description.vocabulary_size)
    start = initial_parameters(model, experiment.seed)
    found = suggest_rate(experiment, population, start, 0.2, clients=1)
    drawn = generator(experiment.seed, Purpose.RATE_CLIENTS).choice(
        population.description.training_clients, 4, replace=False
    )
    batch = next(
        task_of(experiment).batch(rows)
        for rows in training_batches(
            ClientExamples(population, int(drawn[0]), 1), experiment.client, 32,
            seed=experiment.seed, round_number=1, client=int(drawn[0]),
        )
    )  # fmt: skip

    leaf = start.clone().requires_grad_()
    logits, targets = predictions(model, model.layout.views(leaf), batch)
    loss = torch.nn.functional.cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(loss, leaf)
    factor = 3**-1.5 if experiment.client.depth_rule else 1.0
    layers = []
    for flat in (start, start - factor * found.rate * gradient):
        inputs, views = torch.from_numpy(batch.inputs).long(), model.layout.views(flat)
        with torch.no_grad():
            if experiment.model.is_imported:  # before its output layer
                module = Gru(population.description.vocabulary_size)
                module.load_state_dict(views)
                hidden, _ = module.gru(module.embedding(inputs))
            else:
                hidden = model.features(views, inputs)
        layers.append(hidden[torch.from_numpy(batch.asked)].double())
    assert (layers[1] - layers[0]).norm() / layers[0].norm() == pytest.approx(0.2, rel=5e-3)
    assert found.clients == 1
    assert found.lowest == found.highest
    assert found.targets == batch.count
    assert found == suggest_rate(experiment, population, start, 0.2, clients=1)


def test_hooks_are_removed(smoke: Experiment) -> None:
    model = build_model(smoke.updated({"model.architecture": "tests.own_models:Gru"}), 20)
    flat = initial_parameters(model, 0)
    with hidden_seen(model) as seen:
        model.features(model.layout.views(flat), torch.ones(2, 3, dtype=torch.long))
        assert seen[0].shape == (2, 3, 8)
        seen.clear()
    model.features(model.layout.views(flat), torch.ones(2, 3, dtype=torch.long))
    assert not seen


def test_noisy_steps_and_a_layer_of_zeros_are_refused(smoke: Experiment, cache: Path) -> None:
    population = opened(smoke, cache)
    model = build_model(smoke, population.description.vocabulary_size)
    zeros = torch.zeros(model.layout.size)
    with pytest.raises(UserError, match=r"last hidden layer of the untrained model is 0"):
        suggest_rate(smoke, population, zeros)
    noisy = smoke.updated({"client.example_noise_multiplier": 1.0, "server.averaging": "uniform"})
    with pytest.raises(UserError, match=r"example_noise_multiplier is 1\.0; set it to none"):
        suggest_rate(noisy, population, zeros)
