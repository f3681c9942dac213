"""Benchmarks at small sizes: their counts, not their times."""

import itertools
import json
import re
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedsi.data.corpus import silent
from fedsi.data.formats.opening import open_corpus
from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import Experiment, ModelSettings
from fedsi.learning.block import BlockTrainer
from fedsi.learning.client import LocalTrainer
from fedsi.learning.step_by_hand import FusedSgd
from fedsi.models.build import build_model
from fedsi.models.recurrent import Recurrent
from fedsi.models.transformer import Transformer
from fedsi.tasks import next_word
from server.cohorts.sampling import draw_cohort
from simulations.benchmarks import (
    clipping_and_noise,
    device,
    engines,
    fault_table,
    published_sizes,
    roofline,
)
from simulations.benchmarks.engines import Way
from simulations.benchmarks.machine import BenchmarkError
from simulations.benchmarks.peers import measure
from simulations.benchmarks.peers.natural import NaturalModel
from simulations.benchmarks.report import write_measurements
from simulations.benchmarks.scaling.finding import Finding
from simulations.benchmarks.scaling.overhead import time_overhead
from simulations.benchmarks.scaling.report import scaling_report
from simulations.benchmarks.scaling.start import measure_start
from simulations.benchmarks.scaling.workers import measure_memory, measure_workers
from simulations.benchmarks.stack_overflow import write_stack_overflow
from simulations.cli.main import main


def result_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["bench", *arguments, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_ingestion_counts_what_it_generated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    sizes = ["--clients", "50", "--sentences", "2000", "--folder", str(folder)]
    result = result_of(capfd, "ingestion", *sizes)
    assert (result["clients"], result["sentences"]) == (50, 2000)
    assert 20_000 < result["words"] < 28_000
    assert result["sentences_per_second"] > 0
    assert 50 < result["peak_memory_mib"] < 1536
    assert result["reached"]
    assert list(folder.iterdir()) == []


def test_presets_train_what_they_name(
    smoke: Experiment,
    cache: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(published_sizes, "load_preset", lambda _name: smoke)
    monkeypatch.setattr(published_sizes, "PRESETS", ("smoke",))
    arguments = ["--corpus", smoke.data.corpus, "--cohort", "3", "--out", str(tmp_path)]
    assert main(["bench", "presets", *arguments, "--cache", str(cache), "--json"]) == 0
    (row,) = json.loads(capfd.readouterr().out)
    description = open_population(prepare(smoke.data, cache)).description
    size = Recurrent(smoke.model, description.vocabulary_size).layout.size
    assert (row["preset"], row["parameters"], row["cohort"]) == ("smoke", size, 3)
    assert row["seconds"] > 0
    assert 50 < row["before_mib"] <= row["peak_mib"]
    assert {"presets.md", "presets.csv", "presets.png"} <= {f.name for f in tmp_path.iterdir()}


def test_population_draws_in_every_way_and_trains(capfd: pytest.CaptureFixture[str]) -> None:
    result = result_of(capfd, "population", "--clients", "500", "--cohort", "5", "--rounds", "1")
    assert set(result["draw_milliseconds"]) == {
        "uniform",
        "poisson",
        "shuffled",
        "diurnal",
        "trace",
    }
    assert result["train_seconds"] > 0
    assert result["reached"].keys() == result["targets"].keys()


def test_impossible_sizes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ingestion", "--clients", "50", "--sentences", "20"]) == 2
    assert "20 sentences are too few for 50 clients" in capsys.readouterr().err
    assert main(["bench", "population", "--clients", "100", "--cohort", "60"]) == 2
    assert "a cohort of 60 is too large" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["bench", "ingestion", "--folder", str(tmp_path / "file" / "x")]) == 2
    assert re.fullmatch(r"error: cannot write .*file/x: .*\n", capsys.readouterr().err)


def test_the_generated_file_is_what_tensorflow_federated_writes(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    words = write_stack_overflow(path, 30, 1000, 1, silent)
    again = tmp_path / "t.sqlite"
    write_stack_overflow(again, 30, 1000, 1, silent)
    rows = list(open_corpus(path).rows())
    assert rows == list(open_corpus(again).rows())
    assert len(rows) == 1000
    assert sum(len(row.text.split()) for row in rows) == words
    counted: dict[str, int] = {}
    for row in rows:
        counted[row.client] = counted.get(row.client, 0) + 1
    with closing(sqlite3.connect(path)) as connection:
        stored = connection.execute("SELECT client_id, num_examples FROM client_metadata")
        assert dict(stored.fetchall()) == counted
    assert max(counted.values()) > 5 * min(counted.values())


FAKE_PEER = """
import json, shutil, sys
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
for _ in sys.stdin:
    print(json.dumps({"seconds": 5.0}), flush=True)
weights = np.load(folder / "fedsi.npy")
np.save(folder / "pfl.npy", weights + %s)
"""


@pytest.mark.parametrize(
    ("peer", "code", "expected"),
    [
        (FAKE_PEER % "0", 0, ""),
        (FAKE_PEER % "1e-5", 1, "of their change in training; rounding explains"),
        ("print('no')", 1, "pfl did not say how long a round took"),
    ],
)
def test_peers_are_timed_and_their_weights_compared(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    peer: str,
    code: int,
    expected: str,
) -> None:
    script = tmp_path / "peer.py"
    script.write_text(peer)
    monkeypatch.setitem(measure.SCRIPTS, "pfl", script)
    options = ["--pfl-python", sys.executable, "--corpus", "synthetic", "--sizes", "0.05M"]
    counts = ["--architectures", "cifg", "--cohort", "2", "--rounds", "3"]
    places = ["--cache", str(cache), "--out", str(tmp_path / "out"), "--json"]
    assert main(["bench", "peers", *options, *counts, *places]) == code
    captured = capsys.readouterr()
    assert expected in captured.err
    if code:
        assert not (tmp_path / "out").exists()
        return
    (measured,) = json.loads(captured.out)
    assert measured["ratio"] > 1
    assert measured["peer_clients_per_second"] == pytest.approx(2 / 5)
    assert measured["difference"] == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"peers.csv", "peers.md", "peers.png", "peers.svg"}


@pytest.mark.slow
def test_weights_that_differ_as_by_rounding_agree(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "peer.py"
    script.write_text(FAKE_PEER % "1e-10")
    monkeypatch.setitem(measure.SCRIPTS, "pfl", script)
    monkeypatch.setattr(measure, "LARGEST_DIFFERENCE", 0.0)
    options = ["--pfl-python", sys.executable, "--corpus", "synthetic", "--sizes", "0.05M"]
    counts = ["--architectures", "cifg", "--cohort", "2", "--rounds", "2"]
    places = ["--cache", str(cache), "--out", str(tmp_path / "out"), "--json"]
    assert main(["bench", "peers", *options, *counts, *places]) == 0
    (measured,) = json.loads(capsys.readouterr().out)
    assert 0 < measured["difference"] < 1e-6


def test_flower_has_a_report_of_its_own(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = tmp_path / "peer.py"
    script.write_text((FAKE_PEER % "0").replace("pfl.npy", "flower.npy"))
    monkeypatch.setitem(measure.SCRIPTS, "flower", script)
    options = ["--flower-python", sys.executable, "--corpus", "synthetic", "--sizes", "0.05M"]
    counts = ["--architectures", "cifg", "--cohort", "2", "--rounds", "2"]
    places = ["--cache", str(cache), "--out", str(tmp_path / "out")]
    assert main(["bench", "flower", *options, *counts, *places]) == 0
    assert "simulation," in capsys.readouterr().out
    assert (tmp_path / "out" / "flower.csv").exists()
    assert main(["bench", "flower", "--flower-python", "none/python"]) == 2
    assert "pip install 'flwr[simulation]" in capsys.readouterr().err


def test_a_peer_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "peers", "--pfl-python", "none/python"]) == 2
    assert "pip install 'pfl[pytorch]" in capsys.readouterr().err
    known = ["--pfl-python", sys.executable, "--sizes", "9M"]
    assert main(["bench", "peers", *known]) == 2
    assert "there is no size 9M" in capsys.readouterr().err
    known = ["--pfl-python", sys.executable, "--architectures", "cifg,lstm"]
    assert main(["bench", "peers", *known]) == 2
    assert "there is no model lstm; choose from cifg, si_cifg, si_t" in capsys.readouterr().err


@pytest.mark.parametrize("architecture", measure.ARCHITECTURES)
def test_the_natural_module_is_the_model(architecture: str) -> None:
    experiment = measure.experiment_for(Experiment(), architecture, "0.05M", 2, 2)
    model = build_model(experiment, 50)
    start = torch.randn(model.layout.size, generator=torch.Generator().manual_seed(0)) * 0.3
    heads = experiment.model.heads
    module = NaturalModel(model.layout.views(start.clone()), architecture, heads)
    assert np.array_equal(module.flat(), start.numpy())
    rows = np.random.default_rng(0).integers(1, 50, (4, 9)).astype(np.int32)
    rows[1, 5:] = 0
    loss = module.loss(torch.from_numpy(rows).long())
    optimizer = torch.optim.SGD(module.parameters(), lr=experiment.client.learning_rate)
    loss.backward()
    optimizer.step()
    trainer = LocalTrainer(model, experiment.client)
    trainer.begin(start)
    result = trainer.train([next_word.batch(rows)])
    assert result.loss / result.tokens == pytest.approx(loss.item(), rel=1e-5)
    moved = float((trainer.parameters - start).norm())
    apart = float((torch.from_numpy(module.flat()) - trainer.parameters).norm())
    assert apart < 1e-4 * moved


def test_a_step_owes_the_products_of_real_positions() -> None:
    settings = ModelSettings(architecture="cifg", embedding_size=3, hidden_size=5)
    model = Recurrent(settings, 11)
    # Sentences of 3 and 1 targets: positions of the first word have no recurrent product.
    batch = next_word.batch(np.array([[2, 5, 6, 3], [2, 7, 0, 0]], np.int32))
    products = 4 * 3 * 15 + 2 * 5 * 15 + 4 * 5 * 3 + 4 * 3 * 11
    assert roofline.useful_flops(model, batch) == 6 * products


def test_a_transformers_step_owes_what_a_query_may_see() -> None:
    settings = ModelSettings(
        architecture="transformer", embedding_size=4, heads=2, layers=3, feedforward_size=7
    )
    batch = next_word.batch(np.array([[2, 5, 6, 3], [2, 7, 0, 0]], np.int32))
    block = 4 * (4 * 4 * 4 + 2 * 4 * 7) + 2 * (1 + 2 + 3 + 1) * 4
    products = 3 * block + 4 * 4 * 11
    assert roofline.useful_flops(Transformer(settings, 11), batch) == 6 * products


@pytest.mark.slow
def test_a_roofline_is_measured_and_drawn(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--corpus", "synthetic", "--sizes", "0.05M", "--architectures", "cifg,transformer"]
    counts = ["--clients", "1", "--repeats", "2", "--cache", str(cache)]
    assert main(["bench", "roofline", *sizes, *counts, "--out", str(tmp_path), "--json"]) == 0
    for measured in json.loads(capsys.readouterr().out):
        assert 0 < measured["gflops"] < measured["sgemm_gflops"]
        assert measured["share"] == pytest.approx(measured["gflops"] / measured["sgemm_gflops"])
        assert 0.1 < measured["output"] < 1 - measured["sequence"] < 0.97
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".md", ".png", ".svg"}
    assert "CIFG 0.05M" in (tmp_path / "roofline.md").read_text()


@pytest.mark.slow
def test_the_overhead_of_privacy_is_measured_and_drawn(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--corpus", "synthetic", "--sizes", "0.05M", "--cohort", "3", "--rounds", "3"]
    places = ["--cache", str(cache), "--out", str(tmp_path)]
    assert main(["bench", "privacy", *sizes, *places, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert [one["mechanism"] for one in measured] == ["gaussian", "blt"]
    assert all(one["overhead"] > -1 and one["private_seconds"] > 0 for one in measured)
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".md", ".png", ".svg"}
    assert "| CIFG 0.05M | " in (tmp_path / "privacy.md").read_text()


def test_both_runs_of_a_mechanism_draw_the_same_cohorts() -> None:
    base = Experiment().updated({"server.cohort_size": 5, "server.rounds": 3})
    for mechanism in clipping_and_noise.SAMPLINGS:
        plain, private = clipping_and_noise.contestants(base, mechanism)
        assert (plain.privacy.mechanism, private.privacy.mechanism) == ("none", mechanism)
        for number in (1, 2, 3):
            draws = [
                draw_cohort(one, 50, None, number, one.seed).reporting for one in (plain, private)
            ]
            assert draws[0].tolist() == draws[1].tolist()


SMALL = {"data.corpus": "synthetic", "data.population": 60, "data.vocabulary_size": 50}


@pytest.fixture
def small() -> Experiment:
    sizes = {"model.embedding_size": 4, "model.hidden_size": 6}
    return Experiment().updated({**SMALL, **sizes, "server.cohort_size": 4, "server.rounds": 2})


@pytest.mark.slow
def test_workers_are_compared_and_give_the_same_bits(
    tmp_path: Path, cache: Path, small: Experiment
) -> None:
    place = prepare(small.data, cache)
    findings = measure_workers(small, place, [1, 2], tmp_path, silent)
    assert [finding.measure for finding in findings] == [
        "clients/s, 1 workers",
        "clients/s, 2 workers",
        "2 workers over 1",
        "two separate runs over one (control)",
    ]
    assert all(finding.value > 0 for finding in findings)


def test_a_round_is_cut_into_steps_passes_and_the_rest(cache: Path, small: Experiment) -> None:
    place = prepare(small.data, cache)
    before = FusedSgd.step, BlockTrainer.train
    found = time_overhead(small, place)
    assert 0 < found["steps"] < found["block"] < found["round"]
    assert (FusedSgd.step, BlockTrainer.train) == before


@pytest.mark.slow
def test_memory_and_start(tmp_path: Path, cache: Path, small: Experiment) -> None:
    place = prepare(small.data, cache)
    before, peak = measure_memory(small, place, 10**9, [2], tmp_path, silent)
    assert 50 < before.value < 1024
    assert 0 <= peak.value < 1
    start, busy = measure_start(small, cache, 2, tmp_path, silent)
    assert start.value > busy.value / 2 > 0


def test_findings_become_a_table_and_a_figure(tmp_path: Path) -> None:
    findings = [
        Finding("2 workers over 1", 1.9, "", ">= 1.8"),
        Finding("two separate runs over one (control)", 1.95, ""),
        Finding("peak memory of a worker over the model, cohort 20", 4.0, ""),
        Finding("fedsi run to its first round", 3.2, "s", "< 4"),
    ]
    write_measurements(scaling_report(findings), tmp_path)
    table = (tmp_path / "scaling.md").read_text().splitlines()
    assert table[2:4] == [
        "| 2 workers over 1 | 1.90 | >= 1.8 |",
        "| two separate runs over one (control) | 1.95 |  |",
    ]
    assert (tmp_path / "scaling.csv").read_text().splitlines()[0] == "measure,value,unit,target"


def test_engines_are_timed_and_must_have_the_same_bits(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = {
        "usual": Way("in_process"),
        "again": Way("in_process"),
        "left out": Way("in_process", needs="a_package_that_is_missing"),
    }
    monkeypatch.setattr(engines, "WAYS", ways)
    small = Experiment(
        data={"corpus": "synthetic", "population": 60, "vocabulary_size": 100},
        model={"embedding_size": 8, "hidden_size": 12},
        server={"cohort_size": 2},
    )
    experiment = engines.engines_experiment(small, rounds=2)
    found = engines.measure_engines(experiment, [*ways], cache, silent)
    assert [one.way for one in found] == ["usual", "again"]
    assert all(one.round_seconds > 0 and one.start_seconds > 0 for one in found)
    write_measurements(engines.engines_report(found), tmp_path)
    assert found[0].model_sha256[:8] in (tmp_path / "engines.md").read_text()
    another = replace(found[0], model_sha256="0")
    monkeypatch.setattr(
        engines, "_measured", lambda name, *_: another if name == "again" else found[0]
    )
    with pytest.raises(BenchmarkError, match="the engines gave different bits"):
        engines.measure_engines(experiment, [*ways], cache, silent)


@pytest.mark.slow  # it starts a SuperLink and two SuperNodes
def test_deployed_nodes_are_timed_and_ended(cache: Path) -> None:
    small = Experiment(
        data={"corpus": "synthetic", "population": 60, "vocabulary_size": 100},
        model={"embedding_size": 8, "hidden_size": 12},
        server={"cohort_size": 6},
    )
    experiment = engines.engines_experiment(small, rounds=2)
    ways = ["in process, 1 worker", "deployed, 2 SuperNodes"]
    found = engines.measure_engines(experiment, ways, cache, silent)
    assert [one.way for one in found] == ways
    assert found[0].model_sha256 == found[1].model_sha256


def test_impossible_counts_of_workers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scaling", "--workers", "2,4"]) == 2
    assert "start with 1" in capsys.readouterr().err
    assert main(["bench", "scaling", "--workers", "1,1"]) == 2
    assert "not a list of different counts" in capsys.readouterr().err


def test_keystrokes_of_a_run_and_of_a_larger_layer(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    small = ["--preset", "smoke", "--set", "server.rounds=1", "--set", "server.cohort_size=4"]
    assert main(["run", *small, "--out", folder, "--cache", str(cache)]) == 0
    capsys.readouterr()
    command = ["bench", "keystroke", folder, "--cache", str(cache), "--out", folder]
    assert main([*command, "--sizes", "500x40", "--positions", "60", "--parts", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(row["words"], row["size"]) for row in found[7:]} == {(500, 40)}
    assert len(found) == 14
    for row in found:
        assert row["positions"] == 60
        assert row["microseconds"] > 0
        if "exact" in row["layer"] or "certified" in row["layer"]:
            assert row["agreement"] == row["recall"] == 1
    assert (
        "below about 4 MB another one does not pay" in (tmp_path / "run/keystroke.md").read_text()
    )
    assert main([*command, "--sizes", "5x5"]) == 1
    assert "5 x 5 is smaller than the run's output layer" in capsys.readouterr().err
    assert main([*command, "--sizes", "5by5"]) == 2


def test_a_device_is_measured_and_checked(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["--device", "cpu", "--sizes", "0.05M", "--architectures", "cifg", "--lanes", "2"]
    options = [*small, "--cohorts", "2,3", "--cache", str(cache), "--out", str(tmp_path / "out")]
    assert main(["bench", "device", *options, "--json"]) == 0
    rounds = json.loads(capsys.readouterr().out)
    assert [one["cohort"] for one in rounds] == [2, 3]
    assert all(0 < one["difference"] < 1e-4 for one in rounds)
    assert "| 2 at a time, cpu |" in (tmp_path / "out" / "device.md").read_text()
    sums = itertools.count()
    monkeypatch.setattr(device, "_train", lambda *_: (1.0, np.full(3, next(sums), np.int64), 3))
    assert main(["bench", "device", *options]) == 1
    assert "the same round had other bits on cpu" in capsys.readouterr().err


def test_the_fault_table_shows_what_each_fault_costs_and_what_it_touches(cache: Path) -> None:
    runs = fault_table.measure_faults(1, 2.0, ["in process"], cache, lambda *_: None)
    assert [run.fault for run in runs] == ["", *fault_table.PLACES["in process"].faults]
    (raising,) = [run for run in runs if run.fault == "raising"]
    assert all(run.is_as_expected(raising.model_sha256) for run in runs if run.fault)
    report = fault_table.faults_report(runs, 2.0)
    assert [row[5] for row in report.table].count("untouched") == 6
    planted = replace(raising, fault="slow", losses={"too_slow": 1, "node_failed": 1})
    assert fault_table.faults_report([raising, planted], 2.0).table[1][5] == "TOUCHED"


@pytest.mark.slow  # it replaces workers, and actors where Ray is installed
def test_no_fault_of_a_process_touches_other_clients(cache: Path) -> None:
    runs = fault_table.measure_faults(1, 30.0, [*fault_table.PLACES], cache, lambda *_: None)
    (raising,) = [run for run in runs if run.fault == "raising"]
    assert all(run.is_as_expected(raising.model_sha256) for run in runs if run.fault)
    assert len({run.model_sha256 for run in runs if not run.fault}) == 1


def test_a_soak_counts_every_injected_fault(
    cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = ["--cache", str(cache), "--out", str(tmp_path)]
    found = result_of(capfd, "soak", "--rounds", "10", *place)
    assert found["finite"]
    assert sum(found["injected"].values()) > 10
    assert len(found["accounts"]) >= 4
    assert all(expected == counted for _, expected, counted in found["accounts"])


def test_feedforward_parts_of_one_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "feedforward", "--out", str(tmp_path), "--sizes"]
    assert main([*command, "8x400", "--shares", "0.1,0.3", "--json"]) == 0
    dense, few, more, four, sixteen = json.loads(capsys.readouterr().out)
    assert dense["active"] == dense["speed"] == 1
    assert 0.05 < few["active"] < more["active"] < 0.4
    assert few["megabytes"] < more["megabytes"] < dense["megabytes"] == 8 * 400 * 2 * 4 / 1e6
    assert (four["active"], sixteen["active"]) == (1 / 4, 1 / 16)
    assert four["megabytes"] == pytest.approx(4e-6 * (8 * 4 + 8 * 400 * 2 / 4))
    assert max(one["difference"] for one in (dense, few, more, four, sixteen)) < 1e-5
    assert "mixture of experts, 1 of 16" in (tmp_path / "feedforward.md").read_text()
    assert "top k, 0.3 of groups of 16" in (tmp_path / "feedforward.md").read_text()
    assert main([*command, "8x40"]) == 2
    assert "groups of 16 neurons, which do not divide" in capsys.readouterr().err
