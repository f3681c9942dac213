"""The curves of several runs in one figure."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsi import Experiment
from fedsi.tasks.next_word import TASK
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from simulations.cli.main import main
from simulations.reports.overlay import overlay


def rows(loss: float, rounds: int) -> list[RoundRecord]:
    heldout = {**dict.fromkeys(TASK.names, 0.1), "loss": loss}
    first = RoundRecord(1, 5.0, 1, 0, 0, 0, 1, 1.0)
    evaluated = (replace(first, round=n, heldout=heldout) for n in range(2, rounds + 1))
    return [first, *evaluated]


def written(folder: Path, records: list[RoundRecord]) -> Path:
    run = RunFolder(folder)
    run.claim(Experiment(), overwrite=False, resume=False)
    for record in records:
        run.append(record)
    return folder


def test_each_run_has_a_line_of_its_evaluations() -> None:
    figure = overlay({"one": rows(5.0, 3), "two": rows(4.0, 5)}, TASK)
    losses, scores = figure.axes
    assert [np.asarray(line.get_xdata()).tolist() for line in losses.lines] == [
        [2, 3],
        [2, 3, 4, 5],
    ]
    assert np.asarray(losses.lines[1].get_ydata()).tolist() == [4.0] * 4
    assert [line.get_label() for line in scores.lines] == ["one", "two"]
    many = overlay({str(n): rows(4.0, 3) for n in range(23)}, TASK).axes[0]
    assert len({(line.get_color(), line.get_linestyle()) for line in many.lines}) == 23


def test_runs_are_drawn_also_before_they_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = written(tmp_path / "one", rows(5.0, 3)), written(tmp_path / "$x_1$", rows(4.0, 4))
    out = tmp_path / "figures" / "both.png"
    assert main(["plot", str(one), str(two), "--out", str(out)]) == 0
    assert out.stat().st_size > 1000
    assert "<svg" in out.with_suffix(".svg").read_text()
    capsys.readouterr()
    assert main(["plot", str(tmp_path), "--out", str(out)]) == 2
    assert "holds no run" in capsys.readouterr().err
    early = written(tmp_path / "early", rows(5.0, 1))
    assert main(["plot", str(one), str(early), "--out", str(out)]) == 2
    assert "has no evaluation yet" in capsys.readouterr().err
