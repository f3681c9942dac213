"""Whole runs with each way to draw cohorts, and with devices that come and go."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedsi import Experiment
from fedsi.data.prepare import open_population, prepare
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from server.runs.summary import Summary
from simulations import simulate


def recorded(experiment: Experiment, cache: Path, **more: Any) -> tuple[Summary, list[RoundRecord]]:
    records: list[RoundRecord] = []
    result = simulate(
        experiment, cache=cache, on_round=lambda _, record: records.append(record), **more
    )
    return result.summary, records


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"server.sampling": "poisson"}, marks=pytest.mark.slow),
        pytest.param(
            {"server.sampling": "poisson", "server.cohort_cap": 8}, marks=pytest.mark.slow
        ),
        pytest.param({"server.sampling": "allocated"}, marks=pytest.mark.slow),
        {"server.sampling": "cyclic", "server.groups": 4},
        pytest.param(
            {"server.sampling": "shuffled", "server.min_separation": 10}, marks=pytest.mark.slow
        ),
        {
            "devices.availability": "diurnal",
            "devices.over_selection": 1.5,
            "devices.dropout": 0.2,
            "devices.speed_sigma": 0.5,
            "devices.timeout": 2.0,
        },
    ],
)
def test_any_cohorts_give_the_same_bits_on_any_number_of_workers(
    smoke: Experiment, cache: Path, keys: dict[str, Any]
) -> None:
    experiment = smoke.updated(keys)
    one, records = recorded(experiment, cache)
    two, _ = recorded(experiment, cache, workers=2)
    assert one.model_sha256 == two.model_sha256
    assert one.model_sha256 != simulate(smoke, cache=cache).summary.model_sha256
    assert one.status == "finished"
    assert one.clients_trained == sum(record.clients for record in records)
    assert one.clients_dropped == sum(record.dropped for record in records)
    assert (one.clients_dropped > 0) == ("devices.dropout" in keys)


def test_a_run_with_empty_cohorts(smoke: Experiment, cache: Path, tmp_path: Path) -> None:
    experiment = smoke.updated(
        {"server.sampling": "poisson", "server.cohort_size": 1, "server.rounds": 9}
    )
    summary, records = recorded(experiment, cache, out=tmp_path / "r")
    clients = [record.clients for record in records]
    assert len(clients) == 9
    assert clients.count(0) >= 2
    assert max(clients) >= 1
    assert summary.status == "finished"
    assert repr(RunFolder(tmp_path / "r").records()[1:]) == repr(records)
    assert json.loads((tmp_path / "r" / "summary.json").read_text()) == summary.to_json()


def test_a_run_in_which_nobody_ever_reports(smoke: Experiment, cache: Path, tmp_path: Path) -> None:
    experiment = smoke.updated({"devices.timeout": 0.5})
    summary, _ = recorded(experiment, cache, out=tmp_path / "r")
    assert (summary.status, summary.clients_trained) == ("finished", 0)
    assert summary.clients_dropped == 40
    assert summary.train_loss is None
    assert (tmp_path / "r" / "curves.png").exists()


def test_a_trace_of_synthetic_clients(smoke: Experiment, cache: Path, tmp_path: Path) -> None:
    # Held-out clients (from 180) and unknown ids do not take part; nobody is available in round 3.
    lines = ["3,0,60", "4,60,120", "5,60,90", "190,0,999", "nobody,0,999"]
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(["client,start,end", *lines]))
    experiment = smoke.updated(
        {"devices.availability": "trace", "devices.trace": str(trace), "devices.round_seconds": 60}
    )
    summary, records = recorded(experiment, cache)
    assert [record.clients for record in records] == [1, 2, 0, 0]
    assert summary.status == "finished"
    assert summary.model_sha256 == recorded(experiment, cache, workers=2)[0].model_sha256


def test_a_trace_names_clients_as_the_corpus_does(cache: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"user": f"user {k}", "text": " ".join(["word"] * (k + 1))} for k in range(8)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny = Experiment(
        data={"corpus": str(corpus), "vocabulary_size": 5},
        model={"embedding_size": 4, "hidden_size": 4},
        server={"rounds": 1, "cohort_size": 2},
        devices={"availability": "trace", "trace": str(tmp_path / "trace.csv")},
    )
    population = open_population(prepare(tiny.data, cache))
    found = population.find([row["user"] for row in rows]).tolist()
    training = [k for k in range(8) if found[k] < population.description.training_clients]
    for k in training[:3]:
        (tmp_path / "trace.csv").write_text(f"client,start,end\nuser {k},0,1\n")
        summary, (record,) = recorded(tiny, cache)
        assert record.clients == 1
        # Its only sentence has as many words as its number says, and an end.
        assert summary.tokens_trained == k + 2
