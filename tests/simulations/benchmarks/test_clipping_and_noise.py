"""The benchmark of clipping and noise."""

import json
from pathlib import Path

import pytest

from fedsi.experiment import Experiment
from server.cohorts.sampling import draw_cohort
from simulations.benchmarks import (
    clipping_and_noise,
)
from simulations.cli.main import main


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
