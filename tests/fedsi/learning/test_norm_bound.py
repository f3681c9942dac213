"""The norm bound: what it lets through, scales and refuses, and that the server checks it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsi import Experiment, UserError
from fedsi.experiment import ServerSettings
from fedsi.learning.algorithms.algorithm import Contribution
from fedsi.learning.block import BlockTrainer
from fedsi.learning.norm_bound import within_bound
from fedsi.messages import TRAINING_COLUMNS, Outcome, Trained
from fedsi.models.build import initial_parameters
from fedsi.sums.fixed_point import decode
from server.replies import ReplyError, check_trained
from tests.slow_federated import SlowClients

START = np.zeros(5000, np.float32)
UPDATE = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
NORM = float(np.linalg.norm(UPDATE.astype(np.float64)))


@pytest.mark.parametrize("given", [Contribution(), Contribution(UPDATE)])
def test_an_update_beyond_the_bound_is_scaled_to_it_or_refused(given: Contribution) -> None:
    trained = UPDATE if given.update is None else START
    held = within_bound(ServerSettings(norm_bound=2.0), START, trained, given)
    assert (held.refused, held.clipped) == (False, True)
    assert held.norm == pytest.approx(NORM)
    assert held.contribution.update is not None
    assert np.linalg.norm(held.contribution.update.astype(np.float64)) == pytest.approx(2.0)
    assert np.allclose(held.contribution.update * NORM, UPDATE * 2.0, atol=1e-5)
    rejecting = ServerSettings(norm_bound=2.0, beyond_norm_bound="reject")
    assert within_bound(rejecting, START, trained, given).refused
    for bound, update in [(NORM * 1.001, trained), (2.0, np.full_like(START, np.nan))]:
        other = given if given.update is None else Contribution(update)
        found = within_bound(ServerSettings(norm_bound=bound), START, update, other)
        assert (found.refused, found.clipped, found.contribution) == (False, False, other)


@pytest.mark.parametrize("averaging", ["uniform", "examples"])
def test_the_sum_of_a_block_is_within_the_bound_and_the_server_checks_it(
    averaging: str, cache: Path
) -> None:
    experiment = Experiment(
        data={"corpus": "synthetic", "population": 10, "vocabulary_size": 100},
        model={"embedding_size": 8, "hidden_size": 12},
        client={"learning_rate": 0.5, "max_steps": 2},
        server={
            "averaging": averaging, "norm_bound": 0.02, "cohort_size": 4, "optimizer": "sgd",
            "learning_rate": 1.0,
        },
    )  # fmt: skip

    def trained(changes: dict[str, Any]) -> tuple[Experiment, Trained]:
        changed = experiment.updated(changes)
        trainer = BlockTrainer(changed, SlowClients(changed, cache).population)
        start = initial_parameters(trainer.model, 0)
        sums = np.zeros(len(start), np.int64)
        return changed, Trained(sums, trainer.train(start, [0, 1, 2], 1, sums))

    changed, reply = trained({})
    columns = dict(zip(TRAINING_COLUMNS, reply.rows.T, strict=True))
    assert (columns["clipped"] == 1).all()
    assert (columns["norm"] > 0.02).all()
    assert np.linalg.norm(decode(reply.sums)) <= 0.02 * columns["weight"].sum() * (1 + 1e-5)
    check_trained(reply, changed, 3, len(reply.sums), np.inf)
    _, unbounded = trained({"server.norm_bound": "none"})
    norms = [TRAINING_COLUMNS.index(name) for name in ("norm", "clipped")]
    assert not unbounded.rows[:, norms].any()
    lie = Trained(2 * unbounded.sums, reply.rows)
    with pytest.raises(ReplyError, match=r"its sum is beyond server.norm_bound for 3 clients"):
        check_trained(lie, changed, 3, len(reply.sums), np.inf)
    changed, rejected = trained({"server.beyond_norm_bound": "reject"})
    assert (rejected.rows[:, 0] == Outcome.ABOVE_BOUND).all()
    assert not rejected.sums.any()
    check_trained(rejected, changed, 3, len(reply.sums), np.inf)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"server.beyond_norm_bound": "reject"}, "has no effect without server.norm_bound"),
        (
            {
                "server.norm_bound": 1.0, "server.averaging": "uniform",
                "server.sampling": "poisson", "privacy.mechanism": "gaussian",
                "privacy.noise_multiplier": 1.0,
            },
            "privacy.clip_norm bounds every update",
        ),
        (
            {
                "server.norm_bound": 1.0, "server.averaging": "uniform",
                "algorithm.name": "scaffold",
            },
            "also return control_change, which it does not bound",
        ),
    ],
)  # fmt: skip
def test_a_bound_that_does_not_bound_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Experiment().updated(changes)
