"""The held-out targets: one definition for runs, n-gram models and descriptions."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedsi import Experiment
from fedsi.data.corpus import silent
from fedsi.data.heldout import heldout_sample
from fedsi.data.prepare import open_population, prepare
from simulations import simulate
from simulations.cli.main import main
from simulations.evaluation import baselines_of, count_model
from simulations.finished_run import open_run

CAP = "data.max_examples_per_client"


def test_runs_n_grams_and_descriptions_have_the_same_targets_for_any_cap_of_training(
    smoke: Experiment, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = smoke.updated({CAP: 4, "server.rounds": 1, "server.evaluation_clients": 5})
    result = simulate(experiment, cache=cache, out=tmp_path / "run")
    population = open_population(prepare(experiment.data, cache))
    clients = heldout_sample(population.description, 5)
    examples = [population.count(client) for client in clients.tolist()]
    assert result.baselines
    assert min(examples) > 4

    (tmp_path / "cache").mkdir()
    flat, counted = open_run(tmp_path / "run").flat, []
    for cap in (4, 7, None):
        uncapped = experiment.updated({CAP: cap})
        rows = count_model(uncapped, flat, population, clients.tolist(), silent)
        assert rows[:, 0].tolist() == examples
        counted.append(rows)
        again = baselines_of(uncapped, population, tmp_path / "cache", silent)
        assert again
        for name in again.names:
            assert np.array_equal(again.rows[name], result.baselines.rows[name])
        assert again.rows["bigram"][:, 0].tolist() == rows[:, 1].tolist()
    assert all(np.array_equal(rows, counted[0]) for rows in counted)
    assert counted[0][:, 2].sum() / counted[0][:, 1].sum() == pytest.approx(
        result.summary.metric("loss")
    )

    overrides = ("data.population=200", "data.vocabulary_size=200", "data.sequence_length=12")
    settings = [f"--set={o}" for o in (*overrides, "server.evaluation_clients=5")]
    told = ["--json", "--out", str(tmp_path / "told"), "--cache", str(cache)]
    assert main(["data", "describe", "synthetic", *settings, *told]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["ngram_heldout_clients"] == 5
    for told_of in facts["ngrams"]:
        assert told_of["loss"] == result.baselines.loss(told_of["model"])
        assert told_of["accuracy_no_oov_no_eos"] == result.baselines.accuracy(told_of["model"])
