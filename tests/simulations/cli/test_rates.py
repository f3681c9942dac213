"""Learning rates of both sides, chosen for each architecture and level."""

from typing import Any

import pytest

from simulations.cli import studies
from simulations.cli.main import main
from simulations.studies.study import Study

RATES = ["--client-learning-rates", "0.3,1", "--server-learning-rates", "0.01,0.03,0.1"]


@pytest.mark.parametrize(
    ("command", "trials"), [("compare", 2 * 2 * 3), ("tradeoff", 2 * 5 * 2 * 3)]
)
def test_both_rates_are_tuned_for_each_arm_and_level(
    command: str, trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Study] = []

    def keep(study: Study, *_: Any, **__: Any) -> None:
        made.append(study)

    monkeypatch.setattr(studies, "carry_out", keep)
    preset = "smoke" if command == "compare" else "privacy_quickstart"
    assert main([command, "--preset", preset, *RATES]) == 0
    (study,) = made
    assert study.tune == ("client.learning_rate", "server.learning_rate")
    assert study.compare == ("model.architecture",)
    assert len(study.trials()) == trials
