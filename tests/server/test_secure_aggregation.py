"""Secure aggregation: the server gets exact sums, also when clients drop out, and nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Message
from numpy.typing import NDArray

from clients.app import app
from clients.masked import reveal
from fedsi import Experiment, UserError
from fedsi.learning.algorithms.algorithm import UPDATE
from fedsi.limits import FRACTION_BITS
from fedsi.messages import (
    ARRAY_FORMAT,
    ARRAYS,
    TRAINING_COLUMNS,
    MessageError,
    Outcome,
    Reveal,
    Trained,
    array_bytes,
)
from fedsi.sums.secure.masked_round import MaskedRound
from fedsi.sums.totals import COUNTS, as_counts
from server.aggregation import Aggregate
from server.nodes import NodesError
from server.replies import ReplyError, check_trained
from server.secure_aggregation import masked_round, refuse_between_machines, unmasked
from simulations import simulate
from simulations.engines.node import node_context
from tests.server.fake_grid import FakeGrid, raising
from tests.test_docs import fenced

SIZE = 500
LARGEST = np.iinfo(np.int64).max
CLIENTS = np.array([8, 3, 5, 11, 2, 9, 30, 21, 14, 17])
MASKED = Experiment(
    privacy={"secure_aggregation": True, "mask_neighbours": 6}, server={"cohort_size": 10}
)


def row_of(client: int) -> NDArray[np.float64]:
    values = dict.fromkeys(TRAINING_COLUMNS, 0.0)
    values |= {"weight": client, "examples": client, "tokens": 10 * client, "loss": 1.5 * client}
    values |= {"steps": 3, "clipped_steps": client % 3}
    return np.array(list(values.values()))


def vector_of(client: int) -> NDArray[np.int64]:
    floats = np.random.default_rng(client).normal(0, 0.01, 2 * SIZE)
    integers = np.rint(floats * 2.0**FRACTION_BITS).astype(np.int64)
    return np.concatenate([integers, as_counts(row_of(client), 10)])


def honest(message: Message) -> Message:
    return app(message, node_context(1, Path("nowhere")))


def remove(
    survivors: list[int],
    node: Any = honest,
    experiment: Experiment = MASKED,
    clip_norm: float = np.inf,
) -> Aggregate:
    """Sum the survivors' masked vectors and remove the masks."""
    masked = masked_round(experiment, CLIENTS, 1)
    assert masked is not None
    total = np.zeros(2 * SIZE + COUNTS, np.int64)
    for client in survivors:
        vector = vector_of(client)
        masked.add_masks(vector, client)
        total += vector
    rows = np.zeros((len(CLIENTS), len(TRAINING_COLUMNS)))
    rows[:, 0] = np.where(np.isin(CLIENTS, survivors), Outcome.AGGREGATED, Outcome.NOT_FINITE)
    sums, more, counts = np.split(total, [SIZE, 2 * SIZE])
    aggregate = Aggregate(sums, rows, returned={"more": more}, counts=counts)
    grid = FakeGrid({1: honest, 2: node})
    return unmasked(grid, [1, 2], experiment, masked, CLIENTS, aggregate, clip_norm)


@pytest.mark.parametrize("dropped", [[], [8], [30, 2, 17], CLIENTS.tolist()])
def test_the_sum_of_those_that_remain_is_exact(dropped: list[int]) -> None:
    survivors = [client for client in CLIENTS.tolist() if client not in dropped]
    found = remove(survivors)
    expected = sum(map(vector_of, survivors)) + np.zeros(2 * SIZE + COUNTS, np.int64)
    assert (found.sums == expected[:SIZE]).all()
    assert (found.returned["more"] == expected[SIZE : 2 * SIZE]).all()
    total = found.total()
    assert (total.weight, total.tokens) == (sum(survivors), 10 * sum(survivors))
    assert total.loss == pytest.approx(1.5 * sum(survivors))
    assert set(found.means()) == {UPDATE, "more"}


def test_secure_noise_brings_masks_from_entropy() -> None:
    changes = {"mechanism": "gaussian", "noise_multiplier": 1.0, "secure_noise": True}
    server = {"sampling": "poisson", "averaging": "uniform"}
    secure = MASKED.updated(
        {f"privacy.{k}": v for k, v in changes.items()}
        | {f"server.{k}": v for k, v in server.items()}
    )
    one, other = (masked_round(secure, CLIENTS, 1) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.key != other.key
    seeded = [masked_round(MASKED, CLIENTS, number) for number in (1, 1, 2)]
    assert [one.key == seeded[0].key for one in seeded if one and seeded[0]] == [True, True, False]


def test_too_few_left_cannot_remove_the_masks() -> None:
    with pytest.raises(NodesError, match=r"cannot be removed: \d clients .* raise privacy.mask_ne"):
        remove([8, 3, 5])


def test_a_lost_node_costs_only_the_shares_of_its_holders() -> None:
    full = MASKED.updated({"privacy.mask_neighbours": "none"})
    found = remove(CLIENTS.tolist(), node=raising, experiment=full)
    assert (found.sums == sum(vector_of(one)[:SIZE] for one in CLIENTS.tolist())).all()


def test_the_range_is_checked_after_the_masks_are_removed() -> None:
    with pytest.raises(NodesError, match=r"sum of the round is invalid: its sums are beyond what"):
        remove(CLIENTS.tolist(), clip_norm=0.01)


def test_a_lie_about_a_share_is_noticed() -> None:
    def lying(message: Message) -> Message:
        reply = honest(message)
        arrays = reply.content.array_records[ARRAYS]
        shares = arrays["shares"].numpy().copy()
        shares[::9] ^= 1
        arrays["shares"] = Array(str(shares.dtype), shares.shape, ARRAY_FORMAT, array_bytes(shares))
        return reply

    with pytest.raises(NodesError, match=r"not those of one secret|of its private key"):
        remove(CLIENTS.tolist()[:-1], node=lying)


def test_a_client_that_did_not_survive_reveals_nothing() -> None:
    key = np.arange(4, dtype=np.int64)
    request = Reveal(MASKED.to_toml(), key, CLIENTS, np.array([2, 3]), np.array([2, 5]))
    with pytest.raises(MessageError, match="did not survive"):
        reveal(request)
    with pytest.raises(MessageError, match="client 4 does not take part"):
        reveal(replace(request, clients=np.array([4])))
    with pytest.raises(MessageError, match="has 32 bytes, received 8"):
        reveal(replace(request, mask_key=key[:1]))


def test_of_each_client_one_secret_is_revealed() -> None:
    masked = MaskedRound(np.arange(4, dtype=np.int64).tobytes(), CLIENTS, 6)
    survivors = np.sort(CLIENTS[:7])
    key = np.arange(4, dtype=np.int64)
    found = reveal(Reveal(MASKED.to_toml(), key, CLIENTS, survivors, survivors))
    shares = found.shares.reshape(len(found.owners), -1)
    for owner, holder, one in zip(found.owners, found.holders, shares, strict=True):
        kind = "own seed" if owner in survivors else "private key"
        assert one.tobytes() == masked.shares_of(kind, int(owner), [int(holder)])[0]


def test_a_row_that_tells_more_than_the_outcome_is_refused() -> None:
    sums = np.zeros(SIZE, np.int64)
    rows = np.zeros((2, len(TRAINING_COLUMNS)))
    reply = Trained(sums, rows, counts=np.zeros(COUNTS, np.int64))
    check_trained(reply, MASKED, 2, SIZE, np.inf)
    # Masked sums are uniform, so no bound on them makes sense yet.
    check_trained(replace(reply, sums=sums + LARGEST), MASKED, 2, SIZE, np.inf)
    rows = rows.copy()
    rows[0, 2] = 5
    with pytest.raises(ReplyError, match="has more than its outcome"):
        check_trained(replace(reply, rows=rows), MASKED, 2, SIZE, np.inf)


FAILING = {"algorithm.name": "tests.own_algorithms:fails_and_diverges"}
NOISY: dict[str, Any] = {
    "privacy.mechanism": "blt", "privacy.noise_multiplier": 0.5, "privacy.clip_norm": 0.1,
    "server.sampling": "shuffled", "server.averaging": "uniform",
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "clients that fail, diverge and drop out": {**FAILING, "devices.dropout": 0.2},
    "BLT": NOISY,
    "adaptive clipping": {
        **NOISY, "privacy.mechanism": "gaussian", "privacy.clipping": "adaptive",
        "server.sampling": "poisson",
    },
    "SCAFFOLD": {"algorithm.name": "scaffold", "server.averaging": "uniform"},
}  # fmt: skip


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_bits_are_those_of_a_run_without(
    changes: dict[str, Any], workers: int, cache: Path
) -> None:
    plain = Experiment(
        data={"corpus": "synthetic", "population": 60, "vocabulary_size": 100},
        model={"embedding_size": 8, "hidden_size": 12},
        client={"learning_rate": 0.5, "max_steps": 2},
        server={"rounds": 3, "cohort_size": 16, "evaluation_clients": 1, "evaluate_every": 3},
    ).updated(changes)
    masked = plain.updated({"privacy.secure_aggregation": True})
    expected = simulate(plain, cache=cache)
    found = simulate(masked, workers=workers, cache=cache)
    assert found.summary.model_sha256 == expected.summary.model_sha256
    columns = ["clients", "rejected", "failed", "dropped", "tokens", "clipped", "clip_norm"]
    assert found.rounds[columns].equals(expected.rounds[columns])
    one, other = (result.rounds["train_loss"][1:] for result in (found, expected))
    assert np.allclose(one, other, atol=1e-6)
    if "devices.dropout" in changes:
        assert (found.rounds[["rejected", "failed", "dropped"]].sum() > 0).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"privacy.secure_aggregation": False, "privacy.mask_neighbours": 4}, "no effect"),
        ({"privacy.mask_neighbours": 5}, "is odd"),
        ({"privacy.canaries": 100}, "shows only the sum of both"),
        (
            {"algorithm.name": "central", "server.optimizer": "sgd", "server.learning_rate": 1.0},
            r"so there are no updates for privacy\.secure_aggregation",
        ),
    ],
)
def test_what_shows_single_clients_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        MASKED.updated({"privacy.mask_neighbours": "none", **changes})


def test_deployed_nodes_are_refused() -> None:
    with pytest.raises(UserError, match="between machines it would protect nobody"):
        refuse_between_machines(MASKED, "deployed")
    refuse_between_machines(MASKED, "in_process")
    refuse_between_machines(Experiment(), "deployed")


def test_the_demonstration_of_the_page_shows_what_it_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (code,) = fenced("docs/security.md", "python")
    exec(compile(code, "security.md", "exec"), {})
    before, after, exact = capsys.readouterr().out.split()
    assert float(before) < 1e-100
    assert 0.635 < float(after) < 0.645
    assert exact == "True"
