"""``fedsi privacy`` from the command line."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedsi import Experiment, UserError
from fedsi.privacy.accounting import epsilon
from server.differential_privacy import privacy_of
from simulations.cli import privacy_cost
from simulations.cli.main import main


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["privacy", "--json", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    result: dict[str, Any] = json.loads(captured.out)
    return result


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", "--delta", "1e-6"]) == 0
    shown = capsys.readouterr().out
    for value, accountant in (("2.125", "PLD"), ("2.135", "PRV"), ("2.437", "RDP")):
        assert re.search(rf"{value} +│ {accountant} +│ add or remove one client", shown)
    assert "0.7212" in shown  # by a noise multiplier of 2


@pytest.mark.parametrize(
    ("rounds", "said"),
    [(200, "5.9309, exact"), (500, "11.079, an upper bound, at most 3.5 % too large")],
)
def test_an_exact_sensitivity_of_the_tree_is_told_from_a_bound(
    rounds: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["privacy", "--mechanism=tree", "--population=50000", "--cohort-size=1000"]
    assert main([*command, "--min-separation=50", f"--rounds={rounds}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if "sensitivity" in line)
    assert line.strip(" │").endswith(f" {said}")


@pytest.mark.slow
def test_the_page_has_the_values_that_its_commands_print(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the plans themselves, and the tightest accountant.
    monkeypatch.setattr(privacy_cost, "_TRIED", ())
    monkeypatch.setattr(privacy_cost, "all_costs", lambda plan: [epsilon(plan)])
    page = (Path(__file__).parents[3] / "docs" / "privacy.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `fedsi privacy ([^`]*)` \| ([\d.]+) \|", page, re.MULTILINE)
    assert len(rows) > 12
    for arguments, value in rows:
        found = as_json(capsys, *arguments.split())["costs"][0]["epsilon"]
        assert found == pytest.approx(float(value), rel=1e-3), arguments


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = as_json(capsys, "--sampling=uniform", "--population=1000", "--cohort-size=10",
                     "--rounds=100", "--delta=1e-6", "--noise-multiplier=2")  # fmt: skip
    assert result["plan"]["sampling"] == "uniform"
    assert result["sensitivity"] == 2
    assert result["noise_on_mean"] == pytest.approx(0.2)
    tight, loose = result["costs"]
    assert tight["epsilon"] == pytest.approx(0.9985, rel=1e-3)
    assert loose["epsilon"] == pytest.approx(1.79, rel=0.01)
    assert tight["adjacency"] == "replace one client"
    by_noise = {row["noise_multiplier"]: row["epsilon"] for row in result["noise_multipliers"]}
    assert by_noise[1.0] == pytest.approx(8.081, rel=1e-3)
    assert sorted(by_noise.values(), reverse=True) == list(by_noise.values())


def test_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    result = as_json(capsys, "--target-epsilon=2", "--delta=1e-6", "--cohort-cap=1150")
    assert result["plan"]["noise_multiplier"] == pytest.approx(1.03, rel=0.01)
    assert [cost["accountant"] for cost in result["costs"]] == ["PLD"]


def test_without_noise_epsilon_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    result = as_json(capsys, "--noise-multiplier=0", "--rounds=10")
    assert {cost["epsilon"] for cost in result["costs"]} == {None}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--noise-multiplier=1", "--target-epsilon=2"], "give either --noise-multiplier or"),
        (["--mechanism=laplace"], "privacy.mechanism = 'laplace' is not allowed"),
        (["--mechanism=blt", "--sampling=poisson"], "has no valid accounting"),
        (["--sampling=shuffled"], "has no valid accounting"),
        (
            ["--bands=3"],
            "bands has no effect with privacy.mechanism=gaussian; set privacy.mechanism=banded",
        ),
        (["--mechanism=blt", "--restart-every=3"], "set privacy.mechanism=tree or leave it out"),
        (["--delta=0"], "delta = 0 is not allowed"),
        (["--delta=1e-15"], "is below 1e-11"),
        (["--population=10"], "a cohort of 1000 is more than the population of 10"),
        (["--rounds=0"], "server.rounds = 0 is not allowed"),
        (["--rounds=few"], "server.rounds = 'few' is not allowed"),
        (["--population=0"], "--population"),
        (
            ["--mechanism=blt", "--schedule=linear"],
            "server.schedule = 'linear' is not allowed: input should be 'constant'",
        ),
        (
            ["--mechanism=blt", "--schedule=warm_up", "--warm-up-rounds=1001"],
            "leaves too few of the server.rounds (1000)",
        ),
        (
            ["--schedule=cosine"],
            "--schedule has no effect with --mechanism=gaussian; set --mechanism=banded or blt",
        ),
        (["--participations=1"], "set --mechanism=tree or banded or blt or leave it out"),
        (
            ["--warm-up-rounds=3"],
            "server.warm_up_rounds=3 has no effect with server.schedule=constant",
        ),
        (["--noise-multiplier=1e200"], "noise multiplier of 1e+200 is not allowed"),
        (["--target-epsilon=1e300"], "target epsilon of 1e+300 is not allowed"),
        (["--target-epsilon=-1"], "privacy.target_epsilon = -1 is not allowed"),
    ],
)
def test_bad_input(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


def test_noise_is_optimised_for_the_learning_rates(capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--mechanism=blt", "--rounds=100", "--min-separation=50"]
    changing = ["--schedule=cosine", "--warm-up-rounds=20", "--final-fraction=0.1"]
    found = [as_json(capsys, *common), as_json(capsys, *common, *changing)]
    assert found[0]["noise_on_mean"] != found[1]["noise_on_mean"]
    assert found[1]["plan"]["schedule"] == {
        "kind": "cosine", "warm_up_rounds": 20, "final_fraction": 0.1,
    }  # fmt: skip


BY_RUN: dict[str, list[str]] = {
    "a cap below the cohort": ["--cohort-cap=500"],
    "a separation that nothing keeps": ["--min-separation=1"],
    "a warm-up without length": ["--mechanism=blt", "--schedule=warm_up"],
    "a fraction that nothing falls to": [
        "--mechanism=blt", "--schedule=warm_up", "--warm-up-rounds=5", "--final-fraction=0.5",
    ],
    "more bands than rounds apart": ["--mechanism=banded", "--min-separation=3", "--bands=4"],
    "a momentum of 1": ["--mechanism=blt", "--momentum=1.0"],
    "no delta": ["--delta=0.0"],
    "all delta": ["--delta=1.0"],
}  # fmt: skip


@pytest.mark.parametrize("name", BY_RUN)
def test_what_a_run_refuses_is_not_priced(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = dict(word.removeprefix("--").split("=") for word in BY_RUN[name])
    keys = {
        "cohort-cap": "server.cohort_cap", "min-separation": "server.min_separation",
        "mechanism": "privacy.mechanism", "schedule": "server.schedule",
        "warm-up-rounds": "server.warm_up_rounds", "final-fraction": "server.final_fraction",
        "bands": "privacy.bands", "momentum": "server.momentum", "delta": "privacy.delta",
    }  # fmt: skip
    values = {keys[option]: tomllib.loads(f"v = {_quoted(v)}")["v"] for option, v in given.items()}
    run = {
        "server.sampling": "shuffled" if "mechanism" in given else "poisson",
        "server.averaging": "uniform", "server.rounds": 100, "server.cohort_size": 1000,
        "server.optimizer": "sgdm", "server.momentum": 0.0,
        "privacy.mechanism": "gaussian", "privacy.noise_multiplier": 1.0,
    }  # fmt: skip
    with pytest.raises(UserError) as refused:
        privacy_of(Experiment().updated({**run, **values}), 100_000)
    assert main(["privacy", "--rounds=100", *BY_RUN[name]]) == 2
    assert str(refused.value) in capsys.readouterr().err


def _quoted(value: str) -> str:
    return value if value[0].isdigit() else f'"{value}"'


def test_a_delta_that_promises_nothing_is_a_warning(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["privacy", "--population=40", "--cohort-size=4", "--rounds=2", "--delta=.5"]) == 0
    assert "warning: delta = 0.5 is large for 40 clients" in capsys.readouterr().err
    settings: dict[str, object] = {
        "data.population": 40,
        "server.rounds": 1,
        "server.cohort_size": 4,
    }
    settings |= {"server.sampling": "poisson", "server.averaging": "uniform"}
    settings |= {"privacy.mechanism": "gaussian", "privacy.noise_multiplier": 1}
    changes = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    places = ["--cache", str(cache), "--out", str(tmp_path)]
    assert main(["run", "--preset", "smoke", *changes, *places]) == 0
    assert "warning: delta = 0.0194 is large for 36 clients" in capsys.readouterr().err


SMALL = ["--population=400", "--cohort-size=20", "--rounds=40", "--delta=1e-5"]


def test_ways_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    result = as_json(capsys, "--compare", "--target-epsilon=0.5", *SMALL)
    assert [row["name"] for row in result["at_target"]] == [
        row["name"] for row in result["at_equal_error"]
    ]
    assert all(0.499 < row["epsilon"] <= 0.5 for row in result["at_target"])
    blt = result["at_equal_error"][-1]
    assert blt["epsilon"] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.slow
def test_the_comparison_is_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    figure = tmp_path / "ways.png"
    assert main(["privacy", "--compare", *SMALL, f"--figure={figure}"]) == 0
    shown = capsys.readouterr().out
    for part in ("cyclic groups, banded noise", "epsilon at the error of shuffled, BLT"):
        assert part in shown
    assert str(figure) in shown
    assert figure.stat().st_size > 10_000
    assert figure.with_suffix(".svg").exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--compare", "--mechanism=blt"], "--mechanism has no effect with --compare"),
        (["--compare", "--noise-multiplier=1"], "--noise-multiplier has no effect"),
        (["--compare", "--statement"], "give either --compare or --statement"),
        (["--figure=a.png"], "add --compare"),
    ],
)
def test_options_without_effect_on_a_comparison(
    capsys: pytest.CaptureFixture[str], arguments: list[str], match: str
) -> None:
    assert main(["privacy", *arguments]) == 2
    assert match in capsys.readouterr().err
