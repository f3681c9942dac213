"""The benchmark of engines: their times, and that all give the same bits."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedsi.data.corpus import silent
from fedsi.experiment import Experiment
from simulations.benchmarks import (
    engines,
)
from simulations.benchmarks.engines import Way
from simulations.benchmarks.machine import BenchmarkError
from simulations.benchmarks.report import write_measurements


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
