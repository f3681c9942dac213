"""An entry that is planted in a table is known everywhere at once: no second list has the names."""

import json
from typing import Any

import pytest

from fedsi import Experiment, UserError
from fedsi.experiment.field_types import EntryOf, Settings
from simulations.cli.main import main
from simulations.reports.study_words import point_words
from simulations.studies.axes import Point

CHOICES = {
    f"{section}.{key}": mark.table
    for section, field in Experiment.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
    for key, inner in field.annotation.model_fields.items()
    for mark in inner.metadata
    if isinstance(mark, EntryOf)
}
"""The table of every key whose value is an entry of one."""
PLANTED = "planted"


@pytest.fixture(params=CHOICES)
def key(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    entries = CHOICES[request.param].entries
    monkeypatch.setitem(entries, PLANTED, entries[next(iter(entries))])
    return str(request.param)


def test_the_keys_that_choose_are_these() -> None:
    assert set(CHOICES) >= {
        "task.name", "model.architecture", "model.positions", "algorithm.name", "client.optimizer",
        "server.optimizer", "privacy.mechanism",
    }  # fmt: skip


def test_fedsi_keys_lists_it(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", key, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert f"``{PLANTED}``" in found["allowed"]


def test_an_error_lists_it_and_suggests_it(key: str) -> None:
    with pytest.raises(UserError) as error:
        Experiment().updated({key: "plantde"})
    assert f"did you mean {PLANTED}? expected one of" in str(error.value)
    assert PLANTED in str(error.value).partition("expected one of")[2]


def test_an_experiment_takes_it(key: str) -> None:
    needs: dict[str, dict[str, Any]] = {
        "algorithm.distillation_optimizer": {
            "algorithm.name": "fed_df",
            "algorithm.public_corpus": "pydocs",
            "server.averaging": "uniform",
        },
        "model.encoder": {"model.architecture": "dual_encoder"},
        "model.positions": {"model.architecture": "transformer"},
        "model.feedforward": {"model.architecture": "transformer"},
        "privacy.mechanism": {
            "privacy.noise_multiplier": 1.0,
            "server.averaging": "uniform",
            "server.sampling": "poisson",
        },
    }
    experiment = Experiment().updated({**needs.get(key, {}), key: PLANTED})
    assert experiment.flat()[key] == PLANTED
    assert Experiment.from_toml(experiment.to_toml()) == experiment


def test_reports_call_planted_entries_by_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, words in {"model.positions": "FIRE", "model.architecture": "GRU"}.items():
        entries = CHOICES[key].entries
        monkeypatch.setitem(entries, PLANTED, entries[words.lower()])
        assert point_words(Point(key, PLANTED, ((key, PLANTED),), PLANTED)) == words


def test_fedsi_privacy_lists_a_mechanism_and_takes_its_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mechanisms = CHOICES["privacy.mechanism"]
    monkeypatch.setitem(mechanisms.entries, PLANTED, mechanisms.entries["tree"])
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["privacy", "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"gaussian|tree|banded|blt|{PLANTED}" in shown
    assert all(f"--{option}" in shown for option in ("bands", "buffers", "restart-every"))
    small = ["--rounds=8", "--cohort-size=4", "--population=40", "--json"]
    for mechanism in ("tree", PLANTED):
        assert main(["privacy", f"--mechanism={mechanism}", "--restart-every=4", *small]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found[0]["costs"][0]["epsilon"] == found[1]["costs"][0]["epsilon"]
    assert main(["privacy", "--restart-every=4", *small]) == 2
    assert f"set privacy.mechanism=tree or {PLANTED} or leave it out" in capsys.readouterr().err
