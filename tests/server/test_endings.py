"""Conditions that end a run, from its rows alone."""

import math
from dataclasses import replace
from typing import Any

import pytest

from fedsi import Experiment
from fedsi.experiment.experiment import ENDING
from server.endings import Course, ending, has_diverged
from server.round_record import RoundRecord
from tests.server.test_rounds import DESCRIPTION

HEALTHY = RoundRecord(
    round=1,
    train_loss=5.0,
    clients=5,
    rejected=0,
    failed=0,
    dropped=0,
    tokens=100,
    train_seconds=1.0,
    upload_bytes=10,
    download_bytes=20,
)


def with_loss(loss: float) -> RoundRecord:
    return replace(HEALTHY, heldout={"loss": loss})


def with_rejected(rejected: int) -> RoundRecord:
    return replace(HEALTHY, clients=0, tokens=0, rejected=rejected, train_loss=math.nan)


def test_what_counts_as_diverged() -> None:
    limit = 1.5 * math.log(1000)
    assert not has_diverged(HEALTHY, Experiment(), DESCRIPTION)
    assert not has_diverged(with_loss(limit - 0.1), Experiment(), DESCRIPTION)
    assert has_diverged(with_loss(limit + 0.1), Experiment(), DESCRIPTION)
    assert has_diverged(with_loss(math.nan), Experiment(), DESCRIPTION)
    assert has_diverged(with_rejected(5), Experiment(), DESCRIPTION)
    # A round without a cohort is not one whose updates were all refused.
    assert not has_diverged(with_rejected(0), Experiment(), DESCRIPTION)
    # Nor is one whose clients had nothing to learn from, or whose only client failed.
    assert not has_diverged(
        replace(HEALTHY, tokens=0, train_loss=math.nan), Experiment(), DESCRIPTION
    )
    # One client's steps may blow up while the average stays good.
    assert not has_diverged(replace(HEALTHY, train_loss=1e4), Experiment(), DESCRIPTION)


LOSSES = [6.0, 5.0, 5.5, 5.0, 5.2, 4.0, 4.5, 4.6]
"""Held-out, of rounds 1 to 8; of equal ones the first is the lowest."""


@pytest.mark.parametrize(
    ("keys", "last"),
    [
        ({}, 0),
        ({"rounds": 8}, 8),
        ({"patience": 2}, 4),
        ({"patience": 3}, 5),
        ({"patience": 3, "evaluate_every": 2}, 0),  # rounds 2, 4, 6, 8 are judged
        ({"patience": 2, "evaluate_every": 3}, 0),
        ({"target_loss": 4.55}, 6),
        ({"target_loss": 5.0}, 2),
        ({"budget_tokens": 301}, 4),
        ({"budget_tokens": 300}, 3),
        ({"budget_bytes": 90}, 3),
        ({"budget_seconds": 6.5}, 7),
        ({"patience": 3, "budget_tokens": 450, "target_loss": 4.0}, 5),
    ],
)
def test_what_ends_a_run_with_which_round(keys: dict[str, Any], last: int) -> None:
    experiment = Experiment(server={"evaluate_every": 1, "rounds": 50, **keys})
    untrained = replace(with_loss(0.1), round=0, tokens=10**9, upload_bytes=10**9)
    course = Course().after(untrained, experiment.server)
    assert course == Course()  # round 0 has the lowest loss of all, and ends nothing
    assert not ending(experiment, DESCRIPTION, course, untrained, 50)
    found = []
    for number, loss in enumerate(LOSSES, start=1):
        record = replace(with_loss(loss), round=number)
        course = course.after(record, experiment.server)
        found.append(ending(experiment, DESCRIPTION, course, record, experiment.server.rounds))
    reasons = [(number, why) for number, why in enumerate(found, start=1) if why]
    assert reasons[:1] == ([(last, reasons[0][1])] if last else [])
    if last and last < 8:
        assert reasons[0][1] in ENDING
        assert reasons[0][1].removeprefix("server.") in keys


def test_a_round_that_was_not_evaluated_is_not_waited_for() -> None:
    patient = Experiment(server={"evaluate_every": 1, "patience": 1})
    course = Course.of([HEALTHY, HEALTHY], patient.server)
    assert course.waited == 0
    assert course.tokens == 200
    assert not ending(patient, DESCRIPTION, course, HEALTHY, 50)


def test_a_budget_of_epsilon_is_told_from_the_last_round() -> None:
    course, record = Course(), replace(HEALTHY, round=3)
    assert ending(Experiment(), DESCRIPTION, course, record, 3) == "privacy.epsilon_budget"
    three = Experiment(server={"rounds": 3})
    assert ending(three, DESCRIPTION, course, record, 3) == "server.rounds"
