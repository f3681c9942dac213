"""The end of ``fedsi run``: six lines and the next command, or a table of all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsi.data.baselines import Baselines
from fedsi.tasks.next_word import TASK
from server.runs.folder import RunFolder
from simulations.cli.main import main
from simulations.cli.run_summary import lines, next_commands
from tests.summaries import PRIVACY, SUMMARY


def test_six_lines_say_how_a_run_ended(tmp_path: Path) -> None:
    stopped = replace(
        SUMMARY,
        status="stopped",
        ended_by="server.patience",
        rounds=7,
        best_round=5,
        best_heldout_loss=4.125,
        heldout={"loss": None, "accuracy_no_oov_no_eos": 0.125},
        upload_bytes=1_500_000,
        privacy=PRIVACY,
    )
    found = list(lines(stopped, TASK, 50))
    assert len(found) == 6
    assert found[0].startswith("stopped by server.patience: 7 of 50 rounds")
    assert found[2].startswith(
        "held-out loss not a number nats per target, its loss is not finite; "
    )
    assert found[3] == "most likely word 12.5 %, among three suggestions not a number"
    assert found[4].startswith("the best is of round 5: 4.125; ")
    assert found[4].endswith("and send 1.5 MB")
    assert found[5].startswith(f"epsilon {PRIVACY.epsilon:.4g} at delta")
    diverged = replace(stopped, status="diverged", ended_by="divergence")
    assert next(lines(diverged, TASK, 50)).startswith("diverged: 7 of 50 rounds")
    assert list(next_commands(stopped, tmp_path)) == [f"next: fedsi evaluate {tmp_path} --best"]
    (lower,) = next_commands(diverged, Path("-my run"))
    assert lower.endswith("fedsi suggest-lr './-my run/experiment.toml'")


def test_a_run_worse_than_counting_says_so_once() -> None:
    """A trigram model that is worse than the unigram model is no achievement to beat."""
    losses = {"unigram": 310.5, "bigram": 318.7, "trigram": 334.3}
    rows = {name: np.array([[100.0, loss, 90.0, 0.0, 0.0]]) for name, loss in losses.items()}
    counted = Baselines(np.zeros(1, np.int64), rows)
    run = replace(
        SUMMARY, heldout={**SUMMARY.heldout, "loss": 3.2}, unigram_loss=3.105, train_loss=3.0
    )
    assert list(lines(run, TASK, 50, counted))[2] == (
        "held-out loss 3.200 nats per target; 0.095 nats worse than the unigram model (unigram "
        "3.105, bigram 3.187, trigram 3.343)"
    )


def test_losses_are_shown_by_kind_in_rows_summary_page_and_terminal(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = {"raising": 0.1, "not_a_number": 0.1, "wrong_shape": 0.1, "huge": 0.1}
    settings = {f"faults.{name}": share for name, share in faults.items()}
    settings |= {"server.rounds": 4, "server.minimum_replies": 7, "server.repeats": 5}
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = ["run", "--preset", "smoke", "--cache", str(cache), *changes]
    assert main([*command, "--out", str(tmp_path / "r")]) == 0
    said, run = capsys.readouterr(), RunFolder(tmp_path / "r")
    summary, records = run.summary(), run.records()
    assert summary
    assert summary.losses.keys() == {"raised", "not_finite", "wrong_shape", "out_of_range"}
    for name, count in summary.losses.items():
        assert count == sum(getattr(record, name) for record in records)
    for record in records:
        assert sum(record.losses.values()) == record.rejected + record.failed
    every, repeated = sum(summary.losses.values()), summary.rounds_repeated
    assert repeated
    assert f"contributions lost: {every} (update not finite " in said.out
    assert f"; rounds repeated: {repeated}\n" in said.out
    assert f"clients/s, {every} lost, {repeated} repeated" in said.err
    page = (tmp_path / "r" / "report.html").read_text()
    assert "of these: training raised an exception" in page


def test_a_run_ends_with_them(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["run", "--preset", "smoke", "--set", "server.rounds=1", "--cache", str(cache)]
    place = ["--out", str(tmp_path / "r")]
    assert main([*small, *place]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 6
    assert out.startswith("finished: 1 of 1 rounds, 10 clients, ")
    assert out.endswith("no privacy: the model may reveal its clients' text\n")
    assert f"--resume --out {tmp_path / 'r'} --set server.rounds=2 (its checkpoint has" in err
    assert main(["run", "--resume", *place, "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "model SHA-256" in out
    assert len(out.splitlines()) > 20
