"""Median and trimmed mean against the obvious, with ties, even counts and few clients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsi import Experiment, UserError
from fedsi.experiment import AlgorithmSettings
from fedsi.learning.algorithms import median, ranks, trimmed_mean
from fedsi.messages import TRAINING_COLUMNS, Outcome, Trained
from server.replies import ReplyError, check_trained
from server.update_memory import check_update_memory

SETTINGS = AlgorithmSettings()
MEDIAN = Experiment(algorithm={"name": "median"}, server={"averaging": "uniform"})


def updates_of(seed: int, clients: int, parameters: int = 40) -> NDArray[np.float32]:
    """Return updates with ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(-3, 4, (clients, parameters)).astype(np.float32) / np.float32(7)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.integers(1, 12), st.floats(0.01, 0.49))
def test_they_are_what_the_sorted_columns_say(seed: int, clients: int, trim: float) -> None:
    updates = updates_of(seed, clients)
    columns = [sorted(column) for column in updates.T.astype(np.float64).tolist()]
    middle = [(one[(clients - 1) // 2] + one[clients // 2]) / 2 for one in columns]
    assert (median.aggregate(SETTINGS, updates) == np.array(middle, np.float32)).all()
    cut = int(trim * clients + 1e-9)
    kept = [one[cut : clients - cut] for one in columns]
    expected = np.array([sum(one) / len(one) for one in kept], np.float32)
    found = trimmed_mean.aggregate(AlgorithmSettings(name="trimmed_mean", trim=trim), updates)
    assert (found == expected).all()


@pytest.mark.parametrize("name", ["median", "trimmed_mean"])
def test_neither_parts_nor_the_order_of_clients_change_a_bit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = np.random.default_rng(0).standard_normal((9, 1000), np.float32)
    aggregate = {"median": median, "trimmed_mean": trimmed_mean}[name].aggregate
    whole = aggregate(SETTINGS, updates)
    monkeypatch.setattr(ranks, "_NUMBERS", 64)
    assert (aggregate(SETTINGS, updates[::-1]) == whole).all()


def test_a_minority_cannot_move_them_beyond_the_others() -> None:
    honest = np.random.default_rng(0).normal(0, 1, (8, 200)).astype(np.float32)
    poisoned = np.concatenate([honest, np.full((2, 200), -1e6, np.float32)])
    trim = AlgorithmSettings(name="trimmed_mean", trim=0.2)
    for found in (median.aggregate(SETTINGS, poisoned), trimmed_mean.aggregate(trim, poisoned)):
        assert (found >= honest.min(axis=0)).all()
        assert (found <= honest.max(axis=0)).all()
    # One tenth on each side is less than the share of attackers.
    less = trimmed_mean.aggregate(AlgorithmSettings(name="trimmed_mean", trim=0.1), poisoned)
    assert (less < honest.min(axis=0)).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"server.averaging": "examples"}, "each client has one vote"),
        ({"privacy.secure_aggregation": True}, "which privacy.secure_aggregation is there to hide"),
        ({"algorithm.trim": 0.2}, "algorithm.trim=0.2 has no effect"),
    ],
)
def test_what_contradicts_them_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        MEDIAN.updated(changes)


def test_updates_that_do_not_fit_in_memory_are_refused() -> None:
    big = MEDIAN.updated({"server.cohort_size": 500})
    with pytest.raises(UserError, match=r"500 clients of 14.1 MB are 7.07 GB of memory, more than"):
        check_update_memory(big, 3_536_858)
    check_update_memory(big.updated({"algorithm.memory_limit": 8.0}), 3_536_858)
    check_update_memory(Experiment(), 10**9)


def test_a_lying_node_cannot_send_other_updates() -> None:
    experiment = MEDIAN.updated({"server.norm_bound": 2.0})
    rows = np.zeros((2, len(TRAINING_COLUMNS)))
    rows[0, :2] = Outcome.AGGREGATED, 1.0
    rows[1, 0] = Outcome.RAISED
    for place, value, sentence in [
        (0, 0.5, ""),
        (0, np.nan, "beyond what it may add"),
        (0, 1.5, "beyond server.norm_bound"),
        (4, 0.5, "beyond what it may add"),  # of the client that failed
    ]:
        updates = np.zeros(8, np.float32)
        updates[place : place + 2] = value
        reply = Trained(np.zeros(0, np.int64), rows, updates=updates)
        if not sentence:
            check_trained(reply, experiment, 2, 4, np.inf)
            continue
        with pytest.raises(ReplyError, match=sentence):
            check_trained(reply, experiment, 2, 4, np.inf)
