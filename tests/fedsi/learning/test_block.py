import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi import Experiment
from fedsi.data.protocol import Tokens
from fedsi.data.synthetic import SyntheticPopulation, make_synthetic
from fedsi.experiment import DataSettings
from fedsi.learning.algorithms.algorithm import Contribution
from fedsi.learning.block import BlockTrainer
from fedsi.learning.one_by_one import OneByOne
from fedsi.messages import TRAINING_COLUMNS, Outcome
from fedsi.models.build import initial_parameters
from fedsi.sums.fixed_point import decode

EXPERIMENT = Experiment(
    data={"vocabulary_size": 30, "sequence_length": 6, "max_examples_per_client": 16},
    model={"embedding_size": 5, "hidden_size": 7},
    client={"batch_size": 8},
    server={"cohort_size": 4},
)


HEALTHY = make_synthetic(
    DataSettings(
        corpus="synthetic",
        population=20,
        heldout_fraction=0.2,
        vocabulary_size=30,
        sequence_length=6,
    )
)


class Faulty(SyntheticPopulation):
    """A synthetic population with one client that cannot be read and one without text."""

    def __init__(self) -> None:
        super().__init__(HEALTHY.description, HEALTHY.traits, HEALTHY.unigram_log_probabilities)

    def count(self, client: int) -> int:
        return 0 if client == 3 else super().count(client)

    def examples(self, client: int, places: NDArray[np.int64] | None = None) -> Tokens:
        if client == 2:
            raise OSError("disk on fire")
        chosen = np.arange(self.count(client)) if places is None else places
        return super().examples(client, chosen)


def train(
    trainer: BlockTrainer, start: Tensor, clients: list[int], round_number: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    sums = np.zeros(len(start), np.int64)
    return sums, trainer.train(start, clients, round_number, sums)


def test_a_sum_is_the_weighted_sum_of_its_clients() -> None:
    trainer = BlockTrainer(EXPERIMENT, HEALTHY)
    start = initial_parameters(trainer.model, 0)
    together, rows = train(trainer, start, [0, 1, 5], 3)
    alone = [train(trainer, start, [client], 3) for client in (0, 1, 5)]
    total = np.sum([decode(sums) for sums, _ in alone], axis=0)
    np.testing.assert_allclose(decode(together), total, rtol=0, atol=1e-5)
    assert np.array_equal(rows, np.concatenate([row for _, row in alone]))
    assert rows[:, 1].tolist() == rows[:, 2].tolist()  # weighted by examples


@pytest.mark.parametrize(("number", "factor"), [(1, 0.5), (2, 1.0), (5, 0.6), (8, 0.0)])
def test_a_rounds_learning_rate_is_that_of_the_schedule(number: int, factor: float) -> None:
    scheduled = {"client.schedule": "cosine", "client.warm_up_rounds": 2, "server.rounds": 8}
    if factor == 0.6:
        scheduled |= {"client.schedule": "cooldown", "client.final_fraction": 0.6}
        scheduled |= {"server.rounds": 5}
    clipped = {"client.relative_clip": 1.0, "client.weight_decay": 0.1}
    experiment = EXPERIMENT.updated({**scheduled, **clipped})
    rate = {"client.learning_rate": factor} if factor else {"client.learning_rate": 1e-30}
    start = initial_parameters(BlockTrainer(experiment, HEALTHY).model, 0)
    expected, _ = train(
        BlockTrainer(EXPERIMENT.updated({**clipped, **rate}), HEALTHY), start, [0], number
    )
    found, _ = train(BlockTrainer(experiment, HEALTHY), start, [0], number)
    assert np.array_equal(found, expected)
    assert found.any() == (factor > 0)


def test_uniform_averaging_weighs_clients_alike() -> None:
    experiment = EXPERIMENT.updated({"server.averaging": "uniform"})
    trainer = BlockTrainer(experiment, HEALTHY)
    _, rows = train(trainer, initial_parameters(trainer.model, 0), [0, 1], 1)
    assert rows[:, 1].tolist() == [1.0, 1.0]


def test_a_failing_client_costs_its_own_contribution(caplog: pytest.LogCaptureFixture) -> None:
    trainer = BlockTrainer(EXPERIMENT, Faulty())
    start = initial_parameters(trainer.model, 0)
    sums, rows = train(trainer, start, [0, 2, 1], 1)
    expected, _ = train(trainer, start, [0, 1], 1)
    assert np.array_equal(sums, expected)
    assert rows[1].tolist() == [Outcome.RAISED, *[0] * (len(TRAINING_COLUMNS) - 1)]
    assert "client 2 failed in round 1" in caplog.text
    assert np.isnan(trainer.evaluate(start, [0, 2])).all(axis=1).tolist() == [False, True]


def test_a_client_without_examples_contributes_nothing() -> None:
    trainer = BlockTrainer(EXPERIMENT, Faulty())
    sums, rows = train(trainer, initial_parameters(trainer.model, 0), [3], 1)
    assert not sums.any()
    assert rows[0].tolist() == [Outcome.AGGREGATED, *[0] * (len(TRAINING_COLUMNS) - 1)]


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e9])
def test_updates_that_are_not_finite_or_too_large_are_rejected(
    poison: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = BlockTrainer(EXPERIMENT, HEALTHY)
    start = initial_parameters(trainer.model, 0)
    clean, _ = train(trainer, start, [0], 1)
    assert isinstance(trainer._way, OneByOne)
    local = trainer._way._trainer
    train_locally = local.train
    calls = iter([False, True])

    def poisoned(*arguments):  # type: ignore[no-untyped-def]
        result = train_locally(*arguments)
        if next(calls):
            local.parameters[-1] = poison
        return result

    monkeypatch.setattr(local, "train", poisoned)
    sums, rows = train(trainer, start, [0, 1], 1)
    assert np.array_equal(sums, clean)
    outcome, weight = (TRAINING_COLUMNS.index(name) for name in ("outcome", "weight"))
    kind = Outcome.OUT_OF_RANGE if math.isfinite(poison) else Outcome.NOT_FINITE
    assert rows[:, outcome].tolist() == [Outcome.AGGREGATED, kind]
    assert rows[1, weight] == 0


CLIPPED = EXPERIMENT.updated(
    {
        "server.averaging": "uniform",
        "server.sampling": "poisson",
        "privacy.mechanism": "gaussian",
        "privacy.noise_multiplier": 0.0,
    }
)


@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
def test_updates_are_clipped_to_the_norm_of_the_request(clipping: str) -> None:
    trainer = BlockTrainer(CLIPPED.updated({"privacy.clipping": clipping}), HEALTHY)
    start = initial_parameters(trainer.model, 0)
    free, _ = train(trainer, start, [0], 1)
    update = decode(free)
    norm = float(np.linalg.norm(update))
    for clip_norm in (norm / 3, 2 * norm):
        sums = np.zeros(len(start), np.int64)
        (row,) = trainer.train(start, [0], 1, sums, clip_norm)
        clipped = decode(sums)
        outcome, weight, *_, before, was_clipped = row[:7].tolist()
        assert (outcome, weight) == (Outcome.AGGREGATED, 1.0)
        assert before == pytest.approx(norm, rel=1e-6)
        assert float(np.linalg.norm(clipped)) <= clip_norm
        if clipping == "flat":
            assert was_clipped == (clip_norm < norm)
            torch.testing.assert_close(
                clipped, update * min(1, clip_norm / norm), rtol=1e-6, atol=1e-9
            )


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_clipping_lets_nothing_through_that_is_not_finite(
    poison: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = BlockTrainer(CLIPPED, HEALTHY)
    start = initial_parameters(trainer.model, 0)
    assert isinstance(trainer._way, OneByOne)
    local = trainer._way._trainer
    train_locally = local.train

    def poisoned(*arguments):  # type: ignore[no-untyped-def]
        result = train_locally(*arguments)
        local.parameters[4] = poison
        return result

    monkeypatch.setattr(local, "train", poisoned)
    sums = np.zeros(len(start), np.int64)
    (row,) = trainer.train(start, [0], 1, sums, 1.0)
    assert not sums.any()
    outcome, weight = (TRAINING_COLUMNS.index(name) for name in ("outcome", "weight"))
    assert (row[outcome], row[weight]) == (Outcome.NOT_FINITE, 0)


@pytest.mark.parametrize("keeps", [False, True])
def test_only_parameters_that_nobody_keeps_are_set_back(
    keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, clients = BlockTrainer(EXPERIMENT, HEALTHY), [0, 1, 5, 7]
    start = initial_parameters(trainer.model, 0)
    expected, sums = np.zeros((2, len(start)), np.int64)
    for client in clients:
        BlockTrainer(EXPERIMENT, HEALTHY).train(start, [client], 1, expected, 0.01)
    assert isinstance(trainer._way, OneByOne)
    if keeps:
        monkeypatch.setattr(
            trainer._way._rounds,
            "finish",
            lambda _, trained, *__: Contribution(kept={"w": trained}),
        )
    trainer.train(start, clients, 1, sums, 0.01)
    assert np.array_equal(sums, expected)
    assert torch.equal(trainer._way.parameters, start) != keeps


def test_rows_count_the_steps_and_those_that_were_clipped() -> None:
    columns = [TRAINING_COLUMNS.index(name) for name in ("steps", "clipped_steps")]
    found = {}
    for limit in (None, 1e-6, 1e6):
        clip = EXPERIMENT.updated({"client.gradient_clip": limit})
        trainer = BlockTrainer(clip, HEALTHY)
        _, rows = train(trainer, initial_parameters(trainer.model, 0), [0, 1], 1)
        found[limit] = rows[:, columns]
    steps = found[None][:, 0]
    assert (steps > 0).all()
    for limit, clipped in ((None, 0 * steps), (1e-6, steps), (1e6, 0 * steps)):
        assert found[limit].tolist() == np.stack([steps, clipped], axis=1).tolist()
