import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsi import Experiment, UserError
from fedsi.data.batches import poisson_batches, poisson_rate, poisson_steps
from fedsi.data.protocol import PAD, Tokens
from fedsi.experiment import ClientSettings, ModelSettings
from fedsi.learning.client import LocalTrainer
from fedsi.learning.dp_sgd import ExamplePrivateTrainer, clipped_sum
from fedsi.models.build import initial_parameters
from fedsi.models.recurrent import Recurrent
from fedsi.privacy.example_level import example_epsilon
from fedsi.privacy.noise_streams import normal_for_examples
from fedsi.tasks import next_word

MODEL = Recurrent(ModelSettings(embedding_size=6, hidden_size=8), 12)


def rows(count: int, seed: int = 0) -> Tokens:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 8, size=count)
    drawn = rng.integers(1, 12, size=(count, 7))
    drawn[np.arange(7) >= lengths[:, None]] = PAD
    return drawn.astype(np.int32)


def train(settings: ClientSettings, batches: list[Tokens], seed: int = 0) -> torch.Tensor:
    trainer = ExamplePrivateTrainer(MODEL, settings)
    trainer.begin(initial_parameters(MODEL, 0))
    trainer.train(
        map(next_word.batch, batches), partial(normal_for_examples, seed.to_bytes(32, "big"), 1, 0)
    )
    return trainer.parameters.clone()


def test_it_is_the_loop_over_examples() -> None:
    settings = ClientSettings(
        learning_rate=0.5,
        batch_size=4,
        weight_decay=0.1,
        example_noise_multiplier=0.0,
        example_clip_norm=0.2,
    )
    batches = [rows(4, 1), rows(3, 2)]
    slow = initial_parameters(MODEL, 0)
    single = LocalTrainer(MODEL, ClientSettings(learning_rate=1.0))
    for batch in batches:
        total = torch.zeros_like(slow)
        for row in batch:
            single.begin(slow)
            single.train([next_word.batch(row[None])])
            gradient = slow - single.parameters
            total += gradient * min(1.0, 0.2 / float(gradient.norm()))
        slow = slow * (1 - 0.5 * 0.1) - 0.5 / 4 * total
    torch.testing.assert_close(train(settings, batches), slow, rtol=1e-4, atol=1e-6)


def test_adamw_takes_the_noisy_gradients_for_gradients() -> None:
    """The noisy gradients are released; the optimizer only post-processes them."""
    common: dict[str, Any] = {
        "batch_size": 4,
        "example_noise_multiplier": 0.7,
        "example_clip_norm": 0.2,
    }
    batches = [rows(4, 1), rows(0), rows(3, 2)]
    adamw: dict[str, Any] = {
        "optimizer": "adamw",
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "adaptivity": 1e-3,
    }
    settings = ClientSettings(**common, **adamw)
    leaf = initial_parameters(MODEL, 0).requires_grad_()
    twin = torch.optim.AdamW([leaf], lr=0.01, weight_decay=0.1, eps=1e-3)
    gradients = ExamplePrivateTrainer(MODEL, ClientSettings(**common, learning_rate=1.0))
    for step, batch in enumerate(batches):
        gradients.begin(leaf.detach().clone())
        gradients.train([next_word.batch(batch)], partial(_numbers, step))
        leaf.grad = leaf.detach() - gradients.parameters
        twin.step()
    ours = ExamplePrivateTrainer(MODEL, settings)
    ours.begin(initial_parameters(MODEL, 0))
    ours.train(map(next_word.batch, batches), partial(_numbers, 0))
    torch.testing.assert_close(ours.parameters, leaf.detach(), rtol=1e-4, atol=1e-5)


def _numbers(first: int, step: int, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return standard normal numbers that do not depend on the values that they hide."""
    return np.random.default_rng(first + step).standard_normal(len(hidden), np.float32)


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_one_example_moves_the_sum_by_at_most_the_norm(seed: int, clip_norm: float) -> None:
    rng = np.random.default_rng(seed)
    gradients = torch.from_numpy(rng.normal(0, 10, (5, 8)).astype(np.float32))
    difference = clipped_sum(gradients, clip_norm) - clipped_sum(gradients[:-1], clip_norm)
    assert float(difference.norm()) <= clip_norm * (1 + 1e-5)


def test_gradients_that_are_zero_or_not_finite() -> None:
    gradients = torch.tensor([[0.0, 0.0], [math.nan, 1.0], [3.0, 4.0], [math.inf, 0.0]])
    assert clipped_sum(gradients, 1.0).tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("factor", [2 / 3, 1.0, 3 / 2])
def test_noise_has_its_scale(factor: float) -> None:
    settings = ClientSettings(
        learning_rate=1.0, batch_size=8, example_noise_multiplier=1.5, example_clip_norm=0.4
    )
    empty = rows(2)[:0]
    moved = train(settings, [empty]) - initial_parameters(MODEL, 0)
    claimed = factor * 1.5 * 0.4 / 8
    # The sample deviation of d numbers is within 4 / sqrt(2 d) of the true one.
    near = abs(float(moved.std()) / claimed - 1) < 4 / math.sqrt(2 * len(moved))
    assert near == (factor == 1.0)


def test_batches_are_poisson() -> None:
    examples = np.arange(1, 41, dtype=np.int32)[:, None] * np.ones((1, 3), np.int32)
    settings = ClientSettings(batch_size=10, epochs=50)
    drawn = list(poisson_batches(examples, settings, 40, seed=0, round_number=1, client=2))
    assert len(drawn) == poisson_steps(settings, 40) == 200
    sizes = np.array([len(batch) for batch in drawn])
    assert abs(sizes.mean() - 10) < 4 * math.sqrt(7.5 / 200)
    assert sizes.var() == pytest.approx(7.5, rel=0.35)
    counts = np.bincount(np.concatenate([batch[:, 0] for batch in drawn]), minlength=41)[1:]
    assert np.abs(counts - 50).max() < 5 * math.sqrt(200 * 0.25 * 0.75)


@given(st.integers(0, 60), st.integers(1, 30), st.integers(1, 9), st.none() | st.integers(1, 5))
def test_neither_rate_nor_steps_follow_how_many_examples_a_client_has(
    count: int, nominal: int, batch_size: int, max_steps: int | None
) -> None:
    settings = ClientSettings(batch_size=batch_size, max_steps=max_steps)
    drawn = list(poisson_batches(rows(count), settings, nominal, seed=0, round_number=1, client=2))
    assert len(drawn) == poisson_steps(settings, nominal)
    if poisson_rate(settings, nominal) == 1:
        assert all(len(batch) == count for batch in drawn)


def test_large_batches_are_taken_in_parts() -> None:
    """A client may have many more examples than the nominal number."""
    batch = rows(9)
    settings = ClientSettings(example_noise_multiplier=0.0, example_clip_norm=0.2, batch_size=4)
    whole = settings.model_copy(update={"batch_size": 36, "learning_rate": 9.0})
    torch.testing.assert_close(train(settings, [batch]), train(whole, [batch]), rtol=0, atol=1e-6)


def test_local_accounting() -> None:
    settings = ClientSettings(batch_size=10, example_noise_multiplier=1.0)
    # 1000 examples, 1000 participations: q = .01 and 100,000 steps; fewer cost less.
    assert example_epsilon(settings, 1000, 10) < example_epsilon(settings, 1000, 100)
    assert example_epsilon(settings, 1000, 10) < example_epsilon(settings, 100, 10)
    # q .01, z 1, T 1000, delta 1e-6: 2.437 by RDP.
    exact = settings.model_copy(update={"example_delta": 1e-6})
    assert example_epsilon(exact, 1000, 10) == pytest.approx(2.437, rel=0.01)
    noiseless = settings.model_copy(update={"example_noise_multiplier": 0.0})
    assert math.isinf(example_epsilon(noiseless, 10, 1))
    assert example_epsilon(settings, 1000, 0) == 0


def test_settings_that_contradict_it() -> None:
    with pytest.raises(UserError, match="gradient_clip has no effect"):
        Experiment(client={"example_noise_multiplier": 1.0, "gradient_clip": 1.0})
    relative = {"example_noise_multiplier": 1.0, "relative_clip": 2.0, "weight_decay": 0.1}
    with pytest.raises(UserError, match="relative_clip has no effect"):
        Experiment(client=relative)
    with pytest.raises(UserError, match=r"needs server\.averaging=uniform"):
        Experiment(client={"example_noise_multiplier": 1.0})
    hidden = {"example_noise_multiplier": 1.0}
    with pytest.raises(UserError, match=r"needs data\.max_examples_per_client"):
        Experiment(
            client=hidden,
            server={"averaging": "uniform"},
            data={"max_examples_per_client": "none"},
        )
