"""Warnings of unusual settings, with their numbers; usual settings cause none."""

from dataclasses import replace

import pytest

from fedsi import Experiment
from fedsi.data.cautions import cautions
from fedsi.data.population import Description
from fedsi.plan import large_delta, usual_delta
from fedsi.privacy.accounting import accounted_plan, calibrated
from fedsi.privacy.alternatives import error

POPULATION = Description(
    corpus="posts",
    corpus_sha256="",
    content_digest="",
    training_clients=900,
    heldout_clients=100,
    training_examples=9000,
    heldout_examples=1000,
    vocabulary_size=100,
    vocabulary_source="count",
    sequence_length=20,
    unigram_loss=1.0,
)
FEW = replace(POPULATION, training_clients=36, heldout_clients=4)
PRIVATE = {
    "privacy.mechanism": "gaussian",
    "privacy.noise_multiplier": 1.0,
    "server.averaging": "uniform",
    "server.sampling": "poisson",
}


def test_the_usual_settings_need_no_word() -> None:
    assert cautions(Experiment(), POPULATION) == []
    assert cautions(Experiment().updated({**PRIVATE, "privacy.delta": 1e-5}), POPULATION) == []
    assert cautions(Experiment().updated({**PRIVATE, "privacy.population": 10**6}), FEW) == []


def test_what_is_advised_would_change_something() -> None:
    one = replace(POPULATION, training_clients=4, heldout_clients=1)
    (sentence,) = cautions(Experiment(), one)
    assert sentence.endswith("a client is held out or not")  # in groups or one by one


def test_a_delta_that_makes_the_claim_empty_is_said() -> None:
    (sentence,) = cautions(Experiment().updated(PRIVATE), FEW)
    assert sentence.startswith("delta = 0.0194 is large for 36 clients: publishing one of them")
    assert "1/36 = 0.0278" in sentence
    assert large_delta(0.5, 40)
    assert large_delta(1e-3, 1000)
    assert large_delta(usual_delta(10_000), 10_000) is None


def test_participations_that_need_not_be_close_are_said() -> None:
    shuffled = {
        **PRIVATE,
        "privacy.mechanism": "blt",
        "privacy.delta": 1e-6,
        "server.sampling": "shuffled",
        "server.cohort_size": 45,
        "server.rounds": 100,
    }
    experiment = Experiment().updated(shuffled)
    (sentence,) = cautions(experiment, POPULATION)
    assert "blt makes more noise: passes have 20 rounds" in sentence
    assert sentence.endswith("such as 10")
    apart = experiment.updated({"server.min_separation": 10})
    assert cautions(apart, POPULATION) == []

    def noise(one: Experiment) -> float:
        return error(calibrated(accounted_plan(one, 900), 2.0))

    assert noise(apart) < 0.8 * noise(experiment), "the advice is worth following"

    once = {"server.rounds": 20, "server.min_separation": None}
    without_noise = {"privacy.noise_multiplier": 0.0}
    fewer = {"privacy.population": 4500, "privacy.cohort_size": 450}  # passes of 10 rounds
    assert cautions(experiment.updated(once), POPULATION) == []
    assert cautions(experiment.updated(without_noise), POPULATION) == []
    assert "passes have 10 rounds" in cautions(experiment.updated(fewer), POPULATION)[0]


@pytest.mark.parametrize("section", ["server", "client"])
@pytest.mark.parametrize("schedule", ["cosine", "cooldown"])
def test_a_last_round_that_moves_nothing_is_said(schedule: str, section: str) -> None:
    experiment = Experiment().updated({f"{section}.schedule": schedule})
    (sentence,) = cautions(experiment, POPULATION)
    assert sentence.startswith(
        f"round 300 of 300 has the {section} learning rate 0 ({section}.sche"
    )
    assert "costs privacy" not in sentence
    assert "costs privacy" in cautions(experiment.updated(PRIVATE), POPULATION)[0]
    assert cautions(experiment.updated({f"{section}.final_fraction": 0.01}), POPULATION) == []


@pytest.mark.parametrize(
    ("changes", "population", "expected"),
    [
        (
            {},
            {"heldout_clients": 600},
            "40.0 % of the clients (600 of 1,500) are held out, not 10",
        ),
        ({}, {"heldout_clients": 50}, "5.3 % of the clients (50 of 950)"),
        ({"data.heldout_by": "clients"}, {"training_clients": 4, "heldout_clients": 1}, "20.0 %"),
        ({"data.heldout_by": "sentences"}, {"heldout_examples": 4000}, "30.8 % of the sentences"),
        ({"data.heldout_split": "test"}, {"heldout_clients": 600}, None),
        ({"data.heldout_fraction": 0.4}, {"heldout_clients": 600}, None),
    ],
)
def test_the_share_that_is_held_out(
    changes: dict[str, object], population: dict[str, int], expected: str | None
) -> None:
    found = cautions(Experiment().updated(changes), replace(POPULATION, **population))  # type: ignore[arg-type]
    if expected is None:
        assert found == []
    else:
        (sentence,) = found
        assert sentence.startswith(expected)
