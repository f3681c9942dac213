"""``fedsi attack`` and ``fedsi experts`` on a run: rows, groups of seeds, what they refuse."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from simulations import simulate
from simulations.attack import AttackedRun, attack_report
from simulations.cli.main import main
from simulations.presets import load_preset


@pytest.mark.slow
def test_a_run_is_attacked_and_its_experts_looked_at(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = load_preset("smoke").updated(
        {
            "server.rounds": 1,
            "server.cohort_size": 2,
            "model.architecture": "transformer",
            "model.feedforward": "moe",
            "model.embedding_size": 8,
            "model.feedforward_size": 8,
        }
    )
    run = tmp_path / "my_mixture-0123abcd-seed0"
    simulate(small, out=run, cache=cache)
    capsys.readouterr()
    options = ["--cache", str(cache), "--out", str(tmp_path / "out")]
    command = ["attack", str(run), *options, "--targets", "40", "--epsilons", "0.1,0"]
    assert main([*command, "--steps", "2", "--json"]) == 0
    before, after = json.loads(capsys.readouterr().out)
    assert (before["epsilon"], after["epsilon"]) == (0, 0.1)
    assert before["group"] == "my mixture"
    assert before["targets"] == after["targets"] >= 40
    assert before["overlap"] == 1
    assert after["loss"] > before["loss"]
    assert (tmp_path / "out/attack.png").stat().st_size > 1000
    assert main(["attack", str(run), *options, "--targets", "1000000"]) == 2
    assert "targets and not 1,000,000; lower --targets" in capsys.readouterr().err
    assert main(["attack", str(run), *options, "--epsilons", "-1"]) == 2
    assert "--epsilons takes shares from 0 to 10" in capsys.readouterr().err
    assert main(["experts", str(run), *options, "--clients", "7", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["block"], row["expert"]) for row in rows] == [
        (block, expert) for block in (0, 1) for expert in range(4)
    ]
    for block in (0, 1):
        used = [row["tokens"] for row in rows if row["block"] == block]
        assert sum(used) == pytest.approx(1)
    assert all(0 < row["kept"] < 1 for row in rows if row["norm"])
    assert main(["experts", str(run), *options, "--clients", "9", "--clip-norm", "1e6"]) == 0
    assert (tmp_path / "out/experts.md").read_text().count("| 1.000 |") == 8
    capsys.readouterr()
    assert main(["experts", str(run), *options, "--clients", "100000"]) == 2
    assert "training clients and not 100000; lower --clients" in capsys.readouterr().err


def test_seeds_are_one_line_with_their_spread() -> None:
    one = AttackedRun("a-seed0", "a", 0, 0.1, 50, 0.25, 0.5, None, 5.0)
    other = replace(one, run="a-seed1", seed=1, targets=60, accuracy=0.35, retained=None)
    report = attack_report([one, other, replace(one, group="b", overlap=0.75)], 20)
    assert report.table == [
        ("a", "2", "0.1", "0.3000 ± 0.0500", "0.5000", "", "5.0000 ± 0.0000"),
        ("b", "1", "0.1", "0.2500", "0.5000", "0.7500", "5.0000"),
    ]
    assert report.note.startswith("At least 50 held-out targets a run, 20 projected")
