"""Rounds with too few contributions are repeated, and leave no trace but their count."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedsi import Experiment, UserError
from fedsi.privacy.mechanisms.table import MECHANISMS
from server.blocks import answers
from server.differential_privacy import Privacy
from server.nodes import NodesError
from server.runs.folder import RunFolder
from simulations import simulate

BLT = {
    "privacy.mechanism": "blt",
    "privacy.clip_norm": 0.5,
    "privacy.noise_multiplier": 1.0,
    "server.sampling": "shuffled",
    "server.averaging": "uniform",
}
WHOLE = {"server.minimum_replies": 4, "server.repeats": 1}


@pytest.fixture
def small(smoke: Experiment) -> Experiment:
    return smoke.updated({"server.rounds": 2, "server.cohort_size": 4, "server.evaluate_every": 2})


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lose a client in the first attempt of a round, and all in the second; return the attempts."""
    attempts: list[int] = []

    def losing(grid: Any, blocks: Any, job: Any) -> Iterator[Any]:
        request = job.request(job.clients)
        attempt = getattr(request, "attempt", 9)
        attempts.append(attempt)
        for places, reply in answers(grid, blocks, job):
            if attempt == 0:
                yield places[:-1], replace(reply, rows=reply.rows[:-1])
            elif attempt != 1:
                yield places, reply

    monkeypatch.setattr("server.aggregation.answers", losing)
    return attempts


@pytest.mark.parametrize(
    "changes",
    [
        {},
        BLT,
        {"algorithm.name": "scaffold", "server.averaging": "uniform"},
        {"privacy.secure_aggregation": True},
    ],
    ids=["plain", "blt", "scaffold", "secure aggregation"],
)
def test_a_repeated_round_has_the_bits_of_one_without_a_fault(
    small: Experiment, cache: Path, changes: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    changed = small.updated(changes)
    expected = simulate(changed, cache=cache).summary
    request.getfixturevalue("flaky")
    patient = changed.updated({"server.minimum_replies": 4, "server.repeats": 2})
    released: list[int] = []
    honest = Privacy.release

    def counted(self: Privacy, state: Any, aggregate: Any, number: int, *more: Any) -> Any:
        released.append(number)
        return honest(self, state, aggregate, number, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Privacy, "release", counted)
        found = simulate(patient, cache=cache).summary
    assert found.model_sha256 == expected.model_sha256
    assert (found.rounds_repeated, found.clients_lost, expected.rounds_repeated) == (2, 0, 0)
    assert released == ([1, 2] if patient.privacy.mechanism in MECHANISMS else [])


def test_a_round_is_given_up_in_one_sentence_and_can_be_resumed(
    small: Experiment, cache: Path, tmp_path: Path
) -> None:
    whole = simulate(small.updated(BLT), cache=cache).summary
    strict = small.updated({**BLT, **WHOLE})
    with pytest.MonkeyPatch.context() as patch:

        def losing(grid: Any, blocks: Any, job: Any) -> Iterator[Any]:
            second = getattr(job.request(job.clients), "round_number", 0) == 2
            for places, reply in answers(grid, blocks, job):
                yield (
                    (places[:-1], replace(reply, rows=reply.rows[:-1]))
                    if second
                    else (
                        places,
                        reply,
                    )
                )

        patch.setattr("server.aggregation.answers", losing)
        sentence = "round 2 was given up and nothing of it is released, because 3 of 4 clients"
        with pytest.raises(NodesError, match=sentence):
            simulate(strict, cache=cache, out=tmp_path / "run")
    assert len(RunFolder(tmp_path / "run").records()) == 2
    lenient = small.updated({**BLT, "server.minimum_replies": 3})
    resumed = simulate(lenient, cache=cache, out=tmp_path / "run", resume=True).summary
    assert resumed.model_sha256 == whole.model_sha256


def test_without_repeats_a_lost_client_costs_its_contribution(
    small: Experiment, cache: Path, flaky: list[int]
) -> None:
    found = simulate(small.updated({"server.minimum_replies": 3}), cache=cache).summary
    assert (found.clients_trained, found.clients_lost, found.rounds_repeated) == (6, 2, 0)
    assert 1 not in flaky


def test_impossible_numbers_of_replies_are_refused(smoke: Experiment) -> None:
    with pytest.raises(UserError, match=r"more than server\.cohort_size"):
        smoke.updated({"server.minimum_replies": 10**6})
    with pytest.raises(UserError, match=r"server\.repeats has no effect with algorithm\.name"):
        smoke.updated(
            {
                "algorithm.name": "central",
                "server.optimizer": "sgd",
                "server.learning_rate": 1.0,
                "server.repeats": 1,
            }
        )
