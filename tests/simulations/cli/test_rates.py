"""Learning rates of both sides, chosen for each architecture and level."""

from typing import Any

import pytest

from simulations.cli import studies
from simulations.cli.main import main
from simulations.studies.ready import ready_study
from simulations.studies.study import Study

RATES = ["--client-learning-rates", "0.3,1", "--server-learning-rates", "0.01,0.03,0.1"]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Study]:
    """Keep studies instead of running them."""
    kept: list[Study] = []

    def keep(study: Study, *_: Any, **__: Any) -> None:
        kept.append(study)

    monkeypatch.setattr(studies, "carry_out", keep)
    return kept


@pytest.mark.parametrize(
    ("command", "trials"), [("compare", 2 * 2 * 3), ("tradeoff", 2 * 5 * 2 * 3)]
)
def test_both_rates_are_tuned_for_each_arm_and_level(
    command: str, trials: int, made: list[Study]
) -> None:
    preset = "smoke" if command == "compare" else "privacy_quickstart"
    assert main([command, "--preset", preset, *RATES]) == 0
    (study,) = made
    assert study.tune == ("client.learning_rate", "server.learning_rate")
    assert study.compare == ("model.architecture",)
    assert len(study.trials()) == trials


@pytest.mark.parametrize(
    ("more", "rates"),
    [
        ([], (0.003, 0.01, 0.03)),
        (["--set", "server.optimizer=sgdm", "--set", "server.learning_rate=3"], (0.9, 3.0, 9.0)),
        (["--quick"], None),
    ],
)
def test_a_tradeoff_tunes_the_servers_rate_unless_it_is_quick(
    more: list[str], rates: tuple[float, ...] | None, made: list[Study]
) -> None:
    assert main(["tradeoff", "--preset", "privacy_quickstart", *more]) == 0
    (study,) = made
    tuned = [axis for axis in study.axes if axis.called in study.tune]
    assert [axis.values for axis in tuned] == ([] if rates is None else [rates])
    assert len(study.trials()) == 2 * 5 * (1 if rates is None else 3)
    if not more:
        assert study.trials() == ready_study("tradeoff").trials()
        assert studies.cost(study).startswith("30 runs (2 of model.architecture, 5 of target_eps")
        assert studies.cost(study).endswith("together about 36,000 times a client's training")
