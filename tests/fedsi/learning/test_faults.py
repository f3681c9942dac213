"""Injected faults: which client has one, and what a block makes of each."""

import math
from pathlib import Path

import numpy as np
import pytest

from fedsi import Experiment, UserError
from fedsi.data.prepare import open_population, prepare
from fedsi.experiment.faults import FaultSettings
from fedsi.learning.algorithms.algorithm import Contribution
from fedsi.learning.block import BlockTrainer
from fedsi.learning.faults import HUGE, fault_of, spoiled
from fedsi.messages import Outcome
from fedsi.models.build import initial_parameters


def test_faults_follow_from_the_seed_the_round_and_the_client(smoke: Experiment) -> None:
    faulty = smoke.updated({"faults.raising": 0.2, "faults.zeros": 0.1})
    drawn = [fault_of(faulty, 3, client) for client in range(2000)]
    assert drawn == [fault_of(faulty, 3, client) for client in range(2000)]
    assert drawn.count("raising") == pytest.approx(400, abs=80)
    assert drawn.count("zeros") == pytest.approx(200, abs=60)
    others = [
        [fault_of(faulty.updated({"seed": 1}), 3, client) for client in range(2000)],
        [fault_of(faulty, 4, client) for client in range(2000)],
        [fault_of(faulty, 3, client, attempt=1) for client in range(2000)],
    ]
    assert all(other != drawn for other in others)
    assert not any(fault_of(smoke, 3, client) for client in range(100))


def test_shares_of_more_than_everyone_are_refused(smoke: Experiment) -> None:
    with pytest.raises(UserError, match=r"faults\.\* add up to 1\.1"):
        smoke.updated({"faults.raising": 0.6, "faults.slow": 0.5})
    with pytest.raises(UserError, match=r"faults\.\* has no effect with algorithm\.name=central"):
        smoke.updated(
            {"algorithm.name": "central", "server.optimizer": "sgd", "server.learning_rate": 1.0,
             "faults.zeros": 0.5}
        )  # fmt: skip


def test_a_huge_update_has_its_norm_even_if_nothing_was_learned() -> None:
    for update in (np.ones(100, np.float32), np.full(4, 1e-30, np.float32)):
        found = spoiled("huge", Contribution(), update).update
        assert found is not None
        assert np.linalg.norm(found.astype(np.float64)) == pytest.approx(HUGE)


@pytest.mark.parametrize("clip_norm", [math.inf, 0.5])
@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("raising", Outcome.RAISED),
        ("wrong_shape", Outcome.WRONG_SHAPE),
        ("not_a_number", Outcome.NOT_FINITE),
        ("infinite", Outcome.NOT_FINITE),
        ("zeros", Outcome.AGGREGATED),
        ("huge", None),
    ],
)
def test_a_fault_costs_its_client_and_no_other(
    smoke: Experiment, cache: Path, fault: str, outcome: Outcome | None, clip_norm: float
) -> None:
    faulty = smoke.updated({f"faults.{fault}": 0.5, "server.averaging": "uniform"})
    population = open_population(prepare(smoke.data, cache))
    cohort = list(range(8))
    hit = [bool(fault_of(faulty, 1, client)) for client in cohort]
    assert 0 < sum(hit) < 8

    def train(experiment: Experiment, clients: list[int]) -> tuple[np.ndarray, np.ndarray]:
        trainer = BlockTrainer(experiment, population)
        start = initial_parameters(trainer.model, experiment.seed)
        sums = np.zeros(len(start), np.int64)
        rows = trainer.train(start, clients, 1, sums, clip_norm)
        return sums, rows

    sums, rows = train(faulty, cohort)
    healthy = [client for client, bad in zip(cohort, hit, strict=True) if not bad]
    expected, _ = train(smoke.updated({"server.averaging": "uniform"}), healthy)
    clipped = math.isfinite(clip_norm)
    if outcome is None:
        outcome = Outcome.AGGREGATED if clipped else Outcome.OUT_OF_RANGE
    assert (rows[hit, 0] == outcome).all()
    assert (rows[~np.array(hit), 0] == Outcome.AGGREGATED).all()
    if fault == "huge" and clipped:  # it adds a clip norm and no more
        moved = np.linalg.norm((sums - expected) / 2.0**36)
        assert moved <= sum(hit) * clip_norm * (1 + 1e-9)
    else:
        assert np.array_equal(sums, expected)


def test_every_key_of_the_section_is_a_fault() -> None:
    shares = dict.fromkeys(FaultSettings.model_fields, 0.1)
    assert FaultSettings(**shares).shares == shares
