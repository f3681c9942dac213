"""fedsi suggest-lr from the command line, and client.depth_rule in whole runs."""

import json
from pathlib import Path

import pytest

from fedsi.experiment import Experiment
from simulations import simulate
from simulations.cli.main import main


def suggest(cache: Path, *arguments: str) -> int:
    return main(["suggest-lr", "--preset", "smoke", "--cache", str(cache), *arguments])


def test_the_table_the_json_and_the_next_command(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suggest(cache, "--clients", "3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["lowest"] <= found["rate"] <= found["highest"]
    assert found["clients"] == 3
    assert found["command"] == (
        f"fedsi run --preset smoke --set client.learning_rate={found['rate']:.2g}"
    )
    private = ["--set", "privacy.mechanism=gaussian", "--set", "server.sampling=poisson"]
    private += ["--set", "privacy.noise_multiplier=1", "--set", "server.averaging=uniform"]
    assert suggest(cache, "--clients", "3", *private) == 0
    told = capsys.readouterr()
    assert f"{found['rate']:.2g}" in told.out
    assert "next: fedsi run" in told.out
    assert "training clients' text, which epsilon does not cover" in told.err
    assert suggest(cache, "--change", "1") == 2
    assert "--change 1 is not allowed: give a share between 0 and 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [{"client.step": "vectorised"}, {"personalisation.epochs": 1}],
    ids=["vectorised", "one by one, personalised"],
)
def test_the_depth_rule_is_a_rate(
    changes: dict[str, object], smoke: Experiment, cache: Path
) -> None:
    base = smoke.updated(
        {"model.architecture": "transformer", "model.layers": 4, "server.rounds": 1, **changes}
    )
    by_rule = simulate(base.updated({"client.depth_rule": 1}), workers=1, cache=cache)
    by_rate = simulate(base.updated({"client.learning_rate": 0.125}), workers=1, cache=cache)
    assert by_rule.summary.model_sha256 == by_rate.summary.model_sha256
    assert by_rule.summary.heldout_loss == by_rate.summary.heldout_loss
    tuned = [one.summary.personalisation for one in (by_rule, by_rate)]
    if changes.get("personalisation.epochs"):
        assert tuned[0]
        assert tuned[1]
        assert tuned[0].quantiles == tuned[1].quantiles
