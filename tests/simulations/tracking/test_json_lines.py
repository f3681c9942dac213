"""Tests of the log of events: whole lines, continued by a resumed run, a full disk survived."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedsi import Experiment
from fedsi.kernels.cpu.product_choice import usual_products
from server.round_record import RoundRecord
from simulations import simulate
from simulations.cli.main import main
from simulations.tracking.json_lines import JsonLines


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_has_each_event_and_a_resumed_run_continues_it(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    def interrupt(_: Experiment, record: RoundRecord) -> None:
        seen = [line["event"] for line in events(log)]
        assert seen.count("round") == record.round + 1  # flushed before the next observer is called
        if record.round == 2:
            raise KeyboardInterrupt

    log, run = tmp_path / "logs/run.jsonl", tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        simulate(smoke, out=run, cache=cache, on_round=interrupt, sinks=[JsonLines(log)])
    summary = simulate(smoke, out=run, cache=cache, resume=True, sinks=[JsonLines(log)]).summary
    found = events(log)
    assert [(line["event"], line.get("round", line.get("status"))) for line in found] == [
        ("start", None), ("round", 0), ("evaluation", 0), ("round", 1), ("checkpoint", 2),
        ("round", 2), ("evaluation", 2), ("checkpoint", 2), ("end", "interrupted"),
        ("start", None), ("round", 3), ("checkpoint", 4), ("round", 4), ("evaluation", 4),
        ("end", "finished"),
    ]  # fmt: skip
    starts = [line for line in found if line["event"] == "start"]
    assert [line["rounds_before"] for line in starts] == [0, 2]
    settled = smoke.updated({"client.products": usual_products()})
    assert Experiment().updated(starts[0]["experiment"]) == settled
    assert found[1]["epsilon"] is None  # infinite
    assert found[-1]["summary"]["model_sha256"] == summary.model_sha256
    assert found[-2]["heldout_loss"] == summary.heldout_loss


def test_lost_clients_are_an_event(tmp_path: Path) -> None:
    record = RoundRecord(
        round=5, train_loss=float("nan"), clients=3, rejected=0, failed=2, dropped=0, tokens=9,
        train_seconds=1.0,
    )  # fmt: skip
    log = JsonLines(tmp_path / "log.jsonl")
    log.round(record)
    log.round(replace(record, round=6, too_slow=2))
    log.close()
    found = events(tmp_path / "log.jsonl")
    assert [line["event"] for line in found] == ["round", "round", "lost"]
    assert (found[2]["round"], found[2]["too_slow"]) == (6, 2)
    assert found[0]["train_loss"] is None


def test_a_full_disk_does_not_stop_the_run(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = ["run", "--preset", "smoke", "--set", "server.rounds=2", "--cache", str(cache)]
    assert main([*command, "--out", str(tmp_path / "a"), "--log-json", "/dev/full"]) == 0
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning == (
        "--log-json /dev/full gets nothing more of this run, which goes on without it: OSError: "
        "[Errno 28] No space left on device"
    )


def test_a_log_that_cannot_be_opened_is_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["run", "--preset", "smoke", "--out", str(out), "--log-json", str(tmp_path)]) == 2
    assert f"cannot write {tmp_path}: Is a directory" in capsys.readouterr().err
    assert not out.exists()
