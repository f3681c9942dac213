"""Personalisation in a run changes no bit, and the command gives the same result afterwards."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fedsi import Experiment, UserError
from fedsi.tasks.table import task_of
from server.personalisation import summarise
from server.runs.folder import RunFolder
from server.runs.summary import Summary, to_json
from simulations import simulate
from simulations.cli.main import main

TUNED = {"personalisation.epochs": 2, "personalisation.learning_rate": 0.3}


def test_quantiles_are_over_clients_and_gains_positive_where_it_is_better() -> None:
    experiment = Experiment().updated(TUNED)
    columns = task_of(experiment).columns
    place = {name: columns.index(name) for name in columns}

    def row(examples: int, tokens: int, loss: float, hits: int) -> np.ndarray:
        counts = np.zeros(len(columns))
        counts[[place["examples"], place["tokens"], place["loss"]]] = examples, tokens, loss
        for name in columns[3:]:
            counts[place[name]] = hits if "hits" in name or "correct" in name else tokens
        return counts

    befores = [row(2, 10, 10.0 * k, 1) for k in range(1, 6)]
    afters = [row(2, 10, 10.0 * k - 5, 1) for k in range(1, 6)]
    rows = [np.concatenate(pair) for pair in zip(befores, afters, strict=True)]
    rows += [np.zeros(2 * len(columns)), np.full(2 * len(columns), np.nan)]
    found = summarise(experiment, np.array(rows))
    assert (found.clients, found.clients_too_small, found.clients_unevaluated) == (5, 1, 1)
    assert (found.epochs, found.learning_rate) == (2, 0.3)
    assert found.before["loss"] == pytest.approx(3.0)
    assert found.after["loss"] == pytest.approx(2.5)
    assert found.quantiles["loss_before"]["50 %"] == pytest.approx(3.0)
    assert found.quantiles["loss_before"]["90 %"] == pytest.approx(4.6)
    assert all(
        value == pytest.approx(0.5) for value in found.quantiles["loss_gain"].values() if value
    )
    nobody = summarise(experiment, np.array(rows[5:]))
    assert nobody.clients == 0
    assert nobody.quantiles["loss_gain"]["50 %"] is None


def test_a_run_is_tuned_at_its_end_and_keeps_its_bits(
    smoke: Experiment, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = simulate(smoke, cache=cache).summary
    assert plain.personalisation is None
    tuned = smoke.updated(TUNED)
    alone = simulate(tuned, cache=cache, out=tmp_path / "run").summary
    together = simulate(tuned, cache=cache, workers=2).summary
    assert alone.model_sha256 == together.model_sha256 == plain.model_sha256
    found = alone.personalisation
    assert found is not None
    assert found == together.personalisation
    assert found.clients + found.clients_too_small == alone.heldout_clients
    before, after = found.before["loss"], found.after["loss"]
    assert before is not None
    assert after is not None
    assert math.isfinite(before)
    assert after != before
    folder = RunFolder(tmp_path / "run")
    assert folder.summary() == alone
    text = alone.text()
    assert Summary.from_text(text, "summary.json") == alone
    command = ["evaluate", str(tmp_path / "run"), "--cache", str(cache), "--personalise"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["personalisation"] == to_json(found)
    assert main(command) == 0
    assert "Fine-tuned on half of a client's examples, epochs 2" in capsys.readouterr().out


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(UserError, match=r"learning_rate has no effect with pers"):
        Experiment(personalisation={"learning_rate": 0.1})
    with pytest.raises(UserError, match=r"times personalisation.learning_rate = 20.0 leaves nothi"):
        Experiment(
            personalisation={"epochs": 1, "learning_rate": 20.0}, client={"weight_decay": 0.1}
        )
