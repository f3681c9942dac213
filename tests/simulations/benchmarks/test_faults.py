"""The table of faults, and a soak under all of them."""

import json
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from simulations.benchmarks import fault_table, soak
from simulations.cli.main import main


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
    assert main(["bench", "soak", "--rounds", "10", *place, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["finite"]
    assert sum(found["injected"].values()) > 10
    assert len(found["accounts"]) >= 4
    assert all(expected == counted for _, expected, counted in found["accounts"])


def test_a_soak_outlives_processes_and_threads_that_end_while_it_looks_at_them(
    cache: Path,
) -> None:
    stopped = threading.Event()

    def come_and_go() -> None:
        while not stopped.is_set():
            subprocess.run(["true"], check=True)

    coming_and_going = [threading.Thread(target=come_and_go) for _ in range(2)]
    for thread in coming_and_going:
        thread.start()
    try:
        found = soak.measure_soak(60, 2, 1, {}, 30.0, cache, lambda *_: None)
    finally:
        stopped.set()
        for thread in coming_and_going:
            thread.join()
    assert all(row["memory_mib"] > 0 < row["descriptors"] for row in found.rows)
