"""The comparison study from the command line to its page."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from fedsi import Experiment
from server.rounds import RoundRecord
from simulations.cli.main import main
from simulations.reports.figures import comparison_figure
from simulations.reports.findings import findings, table
from simulations.studies.compare import LEARNING_RATE, Comparison, experiment_of
from simulations.studies.grid import Trial, TrialResult, grid
from tests.summaries import summary_of

SMALL = ["--preset", "smoke", "--set", "server.rounds=3", "--set", "server.evaluate_every=1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Run a comparison in which a learning rate makes both architectures diverge."""
    folder = tmp_path_factory.mktemp("study") / "out"
    rates = ["--client-learning-rates", "1,1e30"]
    code = main(["compare", *SMALL, *rates, "--out", str(folder), "--cache", str(cache)])
    assert code == 0
    return folder


def test_it_leaves_tables_a_figure_and_a_page(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "comparison.csv", "comparison.json", "comparison.png", "comparison.svg", "report.html",
        "runs",
    }  # fmt: skip
    rows = pd.read_csv(finished / "comparison.csv")
    assert len(rows) == 4
    assert set(rows["status"]) == {"finished", "diverged"}
    page = (finished / "report.html").read_text()
    for text in ("CIFG and SI-CIFG on synthetic", "<svg", "diverged", "One seed is one seed"):
        assert text in page
    assert not re.search(r"(src|href)=.https?://", page)  # complete without a network


def test_divergence_is_a_result(finished: Path) -> None:
    result = json.loads((finished / "comparison.json").read_text())
    for architecture in ("cifg", "si_cifg"):
        found = result["architectures"][architecture]
        assert found["best_client_learning_rate"] == 1
        assert found["by_client_learning_rate"]["1e+30"]["diverged"] == 1
        assert found["by_client_learning_rate"]["1e+30"]["heldout_loss"] is None
        assert found["heldout_loss"] == found["by_client_learning_rate"]["1"]["heldout_loss"]


def test_resuming_runs_nothing_again(
    finished: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = sorted((finished / "runs").rglob("summary.json"))
    before = [path.stat().st_mtime_ns for path in runs]
    same = ["compare", *SMALL, "--client-learning-rates", "1,1e30", "--out", str(finished)]
    assert main([*same, "--cache", str(cache), "--resume", "--json"]) == 0
    assert [path.stat().st_mtime_ns for path in runs] == before
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((finished / "comparison.json").read_text())
    assert main([*same, "--cache", str(cache)]) == 2
    assert "already holds a comparison" in capsys.readouterr().err
    other = [*same, "--cache", str(cache), "--resume", "--set", "client.batch_size=3"]
    assert main(other) == 2
    assert "another experiment or corpus" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--architectures", "cifg,gro"], "model.architecture = 'gro'"),
        (["--architectures", ""], "--architectures takes different values"),
        (["--client-learning-rates", "1,fast"], "--client-learning-rates takes numbers"),
        (["--client-learning-rates", "1,1"], "takes different values"),
        (["--client-learning-rates", "-1"], "client.learning_rate = -1.0 is not allowed"),
        (["--seeds", "0"], "Invalid value for '--seeds'"),
        (["--set", "data.corpus=none.csv"], "there is no corpus none.csv"),
        (["--set", "server.cohort_size=500"], "more than the 180 training clients"),
        (
            ["--set", "devices.availability=trace", "--set", "devices.trace=none.csv"],
            "cannot read the trace none.csv",
        ),
    ],
)
def test_bad_input(
    arguments: list[str],
    expected: str,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    code = main(["compare", *SMALL, *arguments, "--out", str(out), "--cache", str(cache)])
    assert code == 2
    assert expected in capsys.readouterr().err
    assert not out.exists()


def test_ctrl_c_can_be_resumed(cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "simulations.cli.main", "compare", "--preset", "smoke"]
    command += ["--set", "server.rounds=100000", "--out", str(tmp_path / "o")]
    process = subprocess.Popen([*command, "--cache", str(cache)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.rglob("checkpoint.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in err.splitlines()[-1]
    assert len(list(tmp_path.rglob("checkpoint.safetensors"))) == 2


def result(architecture: str, rate: float, seed: int, loss: float | None) -> TrialResult:
    record = RoundRecord(1, 5.0, 1, 0, 0, 0, 1, 1.0)
    summary = summary_of(loss, seed=seed, training_clients=10)
    return TrialResult(Trial(architecture, LEARNING_RATE, rate, seed), summary, [record])


def test_findings_say_what_was_found() -> None:
    results = [
        result("cifg", 0.3, 0, 5.5), result("si_cifg", 0.3, 0, 5.3),
        result("cifg", 1, 0, 5.2), result("si_cifg", 1, 0, 5.25),
        result("cifg", 3, 0, None), result("si_cifg", 3, 0, 5.4),
    ]  # fmt: skip
    comparison = Comparison(["cifg", "si_cifg"], [0.3, 1, 3], results)
    text = " ".join(findings(comparison))
    assert (
        "CIFG was best at client learning rate 1, with a held-out loss of 5.200; it diverged"
        in text
    )
    assert (
        "SI-CIFG was best at client learning rate 1, with a held-out loss of 5.250; it never"
        in text
    )
    assert "SI-CIFG by 0.200 at 0.3 and CIFG by 0.050 at 1" in text
    assert "Best against best, CIFG is lower by 0.050." in text
    assert "One seed is one seed" in text
    _, rows = table(comparison)
    assert rows[0] == ["CIFG", "1", "5.200", "0.100", "5.500", "5.200", "diverged"]


def test_a_users_model_goes_by_its_import_path() -> None:
    results = [result("cifg", 1, 0, 5.2), result("my_model:gru", 1, 0, 5.1)]
    comparison = Comparison(["cifg", "my_model:gru"], [1], results)
    assert "Best against best, my_model:gru is lower by 0.100." in findings(comparison)
    assert table(comparison)[1][1][0] == "my_model:gru"
    labels = comparison_figure(comparison).axes[1].get_legend_handles_labels()[1]
    assert {"CIFG", "my_model:gru"} < set(labels)


def test_one_diverged_seed_spoils_a_setting() -> None:
    results = [
        result("cifg", 1, 0, 5.0), result("cifg", 1, 1, None),
        result("cifg", 3, 0, 5.2), result("cifg", 3, 1, 5.4),
    ]  # fmt: skip
    comparison = Comparison(["cifg"], [1, 3], results)
    best = comparison.best("cifg")
    assert best is not None
    assert best.value == 3
    assert best.loss == pytest.approx(5.3)
    assert best.half_range == pytest.approx(0.1)
    assert table(comparison)[1][0][-2:] == ["diverged 1 of 2", "5.300 ± 0.100"]
    spoiled = Comparison(["cifg"], [1], results[:2])
    assert spoiled.best("cifg") is None
    assert "diverged at every client learning rate" in " ".join(findings(spoiled))


def test_the_grid_changes_three_keys() -> None:
    trials = list(grid(["cifg", "si_cifg"], LEARNING_RATE, [0.3, 1], seeds=2, first_seed=5))
    assert len(trials) == len({trial.name for trial in trials}) == 8
    experiment = experiment_of(Experiment(), trials[-1])
    assert experiment == Experiment(
        seed=6, model={"architecture": "si_cifg"}, client={"learning_rate": 1.0}
    )
