"""The privacy statement of plans and runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedsi import Experiment
from simulations import simulate
from simulations.cli.main import main
from simulations.reports.privacy_statement import Claim, privacy_statement

CLAIM = Claim(2.125, 1e-6, 1000, 1000, 100_000, "poisson", "gaussian", 1.0, "PLD",
              "add or remove one client", seeded=False)  # fmt: skip
POISSON = {"server.sampling": "poisson", "server.averaging": "uniform", "server.rounds": 2,
           "privacy.mechanism": "gaussian", "privacy.noise_multiplier": 1.0}  # fmt: skip


def test_it_names_unit_adjacency_mechanism_sampling_accountant_and_limits() -> None:
    text = privacy_statement(CLAIM)
    for part in ("epsilon = 2.125 at delta = 1e-06", "one client with all of its data",
                 "add or remove one client", "drawn independently", "gaussian", "multiplier 1,",
                 "accountant PLD", "Trusted are the server", "Not covered"):  # fmt: skip
        assert part in text
    assert "seed" not in text
    assert "seed" in privacy_statement(replace(CLAIM, seeded=True))
    assert "cohorts of 20 clients" in privacy_statement(replace(CLAIM, simulated="20 clients"))


def test_without_noise_nothing_is_claimed() -> None:
    text = privacy_statement(replace(CLAIM, epsilon=None))
    assert text.startswith("The training is not differentially private")
    assert "satisfies" not in text


def test_of_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", "--delta", "1e-6", "--statement"]) == 0
    assert "epsilon = 2.125 at delta = 1e-06" in capsys.readouterr().out
    assert main(["privacy", "--statement", "--json"]) == 2
    assert "not both" in capsys.readouterr().err


def test_of_a_run(
    smoke: Experiment, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = simulate(smoke.updated(POISSON), cache=cache, out=tmp_path / "run").summary.privacy
    assert claim
    assert main(["privacy", "--statement", "--run", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert f"epsilon = {claim.epsilon:.4g}" in shown
    assert "follow from its seed" in shown
    simulate(smoke, cache=cache, out=tmp_path / "other")
    assert main(["privacy", "--statement", "--run", str(tmp_path / "other")]) == 2
    assert "is not private" in capsys.readouterr().err
    assert main(["privacy", "--run", str(tmp_path / "run")]) == 2
    assert "--statement" in capsys.readouterr().err
