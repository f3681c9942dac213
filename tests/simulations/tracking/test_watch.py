"""Tests of the watch: a sink gets every event, and nothing that it does stops the run."""

from pathlib import Path

import pytest

from fedsi import Experiment
from server.rounds import RoundRecord
from simulations import simulate
from tests.simulations.tracking.sinks import NotingSink


def test_a_sink_gets_each_event_in_order(smoke: Experiment, cache: Path, tmp_path: Path) -> None:
    sink = NotingSink()
    simulate(smoke, out=tmp_path / "run", cache=cache, sinks=[sink])
    assert sink.events == [
        ("start", True), ("round", 1), ("checkpoint", 2), ("round", 2), ("round", 3),
        ("checkpoint", 4), ("round", 4), ("end", "finished"), ("close", None),
    ]  # fmt: skip


def test_a_failing_sink_is_one_warning_and_changes_no_bit(
    smoke: Experiment, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whens = ("start", "round 2", "checkpoint", "end", "close")
    failing = [NotingSink((when,), f"fails at {when}") for when in whens]
    other = NotingSink()
    sinks = [*failing, other]
    summary = simulate(smoke, out=tmp_path / "run", cache=cache, sinks=sinks).summary
    warnings = {record.getMessage() for record in caplog.records}
    assert len(caplog.records) == len(failing)
    assert {warning.partition(" (")[0] for warning in warnings} == {
        f"fails at {when} gets nothing more of this run, which goes on without it: OSError: "
        "[Errno 28] No space left on device"
        for when in whens
    }
    assert all(sink.events[-1] == ("close", None) for sink in failing)
    assert other.events[-2:] == [("end", "finished"), ("close", None)]
    assert summary.model_sha256 == simulate(smoke, cache=cache).summary.model_sha256


def test_a_run_that_is_interrupted_or_fails_is_told_to_its_sinks(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    def interrupt(_: Experiment, record: RoundRecord) -> None:
        if record.round == 3:
            raise KeyboardInterrupt

    sink = NotingSink()
    with pytest.raises(KeyboardInterrupt):
        simulate(smoke, out=tmp_path / "run", cache=cache, on_round=interrupt, sinks=[sink])
    assert sink.events[-4:] == [
        ("round", 3), ("checkpoint", 3), ("end", "interrupted"), ("close", None),
    ]  # fmt: skip
    sink = NotingSink()
    simulate(smoke, out=tmp_path / "run", cache=cache, resume=True, sinks=[sink])
    assert sink.events[:2] == [("start", False), ("checkpoint", 4)]

    sink = NotingSink()
    missing = smoke.updated({"data.corpus": "no_such_corpus.txt"})
    with pytest.raises(Exception, match="no_such_corpus"):
        simulate(missing, cache=cache, sinks=[sink])
    assert sink.events == [("end", "failed"), ("close", None)]
