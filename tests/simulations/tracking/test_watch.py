"""Tests of the watch: a sink gets every event, and nothing that it does stops the run."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from fedsi import Experiment
from fedsi.experiment import Scalar
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from simulations import simulate
from simulations.studies.results import RUNS
from simulations.tracking.study_watch import StudyWatch
from simulations.tracking.table import Tracked, Tracker
from tests.simulations.tracking.sinks import NotingSink


def test_a_sink_gets_each_event_in_order(smoke: Experiment, cache: Path, tmp_path: Path) -> None:
    sink = NotingSink()
    simulate(smoke, out=tmp_path / "run", cache=cache, sinks=[sink])
    assert sink.events == [
        ("start", True), ("round", 0), ("round", 1), ("checkpoint", 2), ("round", 2),
        ("round", 3), ("checkpoint", 4), ("round", 4), ("end", "finished"), ("close", None),
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


NOTED: dict[str, tuple[Tracked, dict[str, object]]] = {}


class NotingCurves:
    """Notes what it knows of a run, and the facts of its end."""

    def __init__(self, folder: Path, run: Tracked) -> None:
        del folder
        self._noted: dict[str, object] = {}
        NOTED[run.name] = run, self._noted

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Note nothing."""

    def end(self, status: str, facts: Mapping[str, Scalar]) -> None:
        self._noted |= {"status": status, **facts}

    def close(self) -> None:
        """Do nothing."""


NOTING = Tracker(NotingCurves)


def test_trackers_get_the_keys_and_the_summary_of_a_trial(
    smoke: Experiment, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = smoke.updated({"client.learning_rate": 0.25})
    out = tmp_path / RUNS / "lr0.25-seed0"
    summary = simulate(experiment, out=out, cache=cache).summary
    rows = RunFolder(out).records()
    with StudyWatch([f"{__name__}:NOTING"], tmp_path, "study", fresh=False) as watch:
        with monkeypatch.context() as patch:  # the last row is written before the summary
            patch.setattr(RunFolder, "summary", lambda _: None)
            watch.records(out.name, rows[:2])
            watch.records(out.name, rows)
        run, end = NOTED[out.name]
        assert (run.group, run.settings["client.learning_rate"]) == ("study", 0.25)
        assert not end
        watch.records(out.name, rows)
        assert end == {
            "status": "finished", "ended_by": "server.rounds", "rounds": 4,
            "parameters": summary.parameters, "best_round": summary.best_round,
            "best_heldout_loss": summary.best_heldout_loss, "model_sha256": summary.model_sha256,
        }  # fmt: skip
