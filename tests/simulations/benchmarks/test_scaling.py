"""The scaling benchmark: workers, overhead, memory and start."""

from pathlib import Path

import pytest

from fedsi.data.corpus import silent
from fedsi.data.prepare import prepare
from fedsi.experiment import Experiment
from fedsi.learning.block import BlockTrainer
from fedsi.learning.step_by_hand import FusedSgd
from simulations.benchmarks.report import write_measurements
from simulations.benchmarks.scaling.finding import Finding
from simulations.benchmarks.scaling.overhead import time_overhead
from simulations.benchmarks.scaling.report import scaling_report
from simulations.benchmarks.scaling.start import measure_start
from simulations.benchmarks.scaling.workers import measure_memory, measure_workers
from simulations.cli.main import main

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


def test_impossible_counts_of_workers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scaling", "--workers", "2,4"]) == 2
    assert "start with 1" in capsys.readouterr().err
    assert main(["bench", "scaling", "--workers", "1,1"]) == 2
    assert "not a list of different counts" in capsys.readouterr().err
