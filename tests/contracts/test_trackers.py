"""Contract of all trackers: each round once, also after a resumption, and no effect on the run."""

import errno
import importlib
import json
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedsi import Experiment, UserError
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from simulations import simulate
from simulations.cli.main import main
from simulations.engines.processes import own_command, single_threaded_environment
from simulations.studies.results import RUNS
from simulations.tracking.curves import TRACKING, curves_of
from simulations.tracking.study_watch import StudyWatch
from simulations.tracking.table import TRACKERS
from tests.test_docs import ROOT, fenced

ADDED = "text_file"
"""The tracker of the documentation."""

Read = Callable[[Path], dict[str, list[tuple[int, float]]]]
"""Returns the (round, held-out loss) of each run in a tracker's folder."""
LOSS = "heldout_loss"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the packages


def text_files(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = {}
    for path in folder.glob("*.tsv"):
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        found[path.stem] = [(int(step), float(v)) for step, name, v in rows if name == LOSS]
    return found


def event_files(folder: Path) -> dict[str, list[tuple[int, float]]]:
    module = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    found = {}
    for path in {file.parent for file in folder.rglob("events.*")}:
        events = module.EventAccumulator(str(path)).Reload()
        found[path.name] = [(event.step, event.value) for event in events.Scalars(LOSS)]
    return found


def file_store(folder: Path) -> dict[str, list[tuple[int, float]]]:
    client = importlib.import_module("mlflow").MlflowClient(tracking_uri=folder.as_uri())
    places = [one.experiment_id for one in client.search_experiments()]
    return {
        run.info.run_name: [
            (one.step, one.value) for one in client.get_metric_history(run.info.run_id, LOSS)
        ]
        for run in client.search_runs(places)
    }


def offline_runs(folder: Path) -> dict[str, list[tuple[int, float]]]:
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.rglob("*.wandb")):
        name = ""
        for content in _level_db_records(path.read_bytes()):
            record = messages.Record.FromString(content)
            name = record.run.display_name or name
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            if LOSS in values:
                found.setdefault(name, []).append((record.history.step.num, values[LOSS]))
    return found


def _level_db_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of W&B's file: LevelDB's log format after a header of seven bytes."""
    place, block, parts = 7, 32 * 1024, b""
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
            continue
        size, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if place > len(content):  # it is being written
            return
        if kind in {1, 4}:  # whole, or the last part
            yield parts
            parts = b""


READ: dict[str, Read] = {
    "tensorboard": event_files,
    "wandb": offline_runs,
    "mlflow": file_store,
    ADDED: text_files,
}


def assert_holds(tracker: str, folder: Path, expected: object) -> None:
    """Assert what a tracker holds, at the latest after some seconds: W&B's own process writes."""
    deadline = time.monotonic() + (30 if tracker == "wandb" else 0)
    while READ[tracker](folder / TRACKING / tracker) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert READ[tracker](folder / TRACKING / tracker) == expected


@pytest.fixture(params=[*TRACKERS, ADDED])
def tracker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == ADDED:
        (code,) = fenced("docs/add-a-tracker.md", "python")
        (tmp_path / f"planted_{name}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(TRACKERS.entries, name, f"planted_{name}")
    elif package := TRACKERS[name].package:
        pytest.importorskip(package, exc_type=ImportError)
    return name


def test_a_resumed_run_continues_its_curves(
    tracker: str, smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    def interrupt(_: Experiment, record: RoundRecord) -> None:
        if record.round == 3:
            raise KeyboardInterrupt

    out = tmp_path / "run"
    experiment = smoke.updated({"server.evaluate_every": 1})
    sinks = curves_of([tracker], out)
    with pytest.raises(KeyboardInterrupt):
        simulate(experiment, out=out, cache=cache, on_round=interrupt, sinks=sinks)
    (out / "checkpoint.safetensors").unlink()  # so that all rounds are run again
    sinks = curves_of([tracker], out)
    result = simulate(experiment, out=out, cache=cache, resume=True, sinks=sinks)
    rounds = zip(result.rounds["round"], result.rounds[LOSS], strict=True)
    losses = [(step, pytest.approx(loss)) for step, loss in rounds]
    assert_holds(tracker, out, {"run": losses})

    shorter = experiment.updated({"server.rounds": 2})
    sinks = curves_of([tracker], out)
    simulate(shorter, out=out, cache=cache, overwrite=True, sinks=sinks)
    assert_holds(tracker, out, {"run": losses[:3]})


def test_a_full_disk_is_one_warning(
    tracker: str,
    smoke: Experiment,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (sink,) = curves_of([tracker], tmp_path / "run")
    monkeypatch.setattr(sink, "_note", full)
    experiment = smoke.updated({"server.rounds": 2})
    simulate(experiment, out=tmp_path / "run", cache=cache, sinks=[sink])
    mine = [r.getMessage() for r in caplog.records if "nothing more" in r.getMessage()]
    assert len(mine) == 1
    assert mine[0].startswith(f"{tracker} gets nothing more of this run, which goes on without it")


def test_the_runs_of_a_study_are_told_apart(
    tracker: str, smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    trials = {}
    for seed in (0, 1):
        trial = smoke.updated({"seed": seed, "server.evaluate_every": 1, "server.rounds": 2})
        folder = tmp_path / RUNS / f"seed{seed}"
        simulate(trial, out=folder, cache=cache)
        trials[folder.name] = RunFolder(folder).records()
    with StudyWatch([tracker], tmp_path, "study", fresh=False) as watch:
        for rounds in (1, 3):  # both are open at the same time
            for name, records in trials.items():
                watch.records(name, records[:rounds])
    with StudyWatch([tracker], tmp_path, "study", fresh=False) as watch:
        for name, records in trials.items():
            watch.records(name, records)
    close = {
        name: [(r.round, pytest.approx(r.heldout["loss"])) for r in records if r.heldout]
        for name, records in trials.items()
    }
    assert_holds(tracker, tmp_path, close)


@pytest.mark.slow
def test_the_command_of_a_study_tracks_its_trials(cache: Path, tmp_path: Path) -> None:
    (code,) = fenced("docs/add-a-tracker.md", "python")
    (tmp_path / "mine.py").write_text(code)
    command = [
        "sweep", "--preset", "smoke", "--vary", "client.learning_rate=0.3,1", "--set",
        "server.rounds=2", "--cache", str(cache), "--out", "swept", "--track", "mine:TRACKER",
    ]  # fmt: skip
    for more in ([], ["--resume"], ["--overwrite"]):
        subprocess.run(
            [*own_command("simulations.cli.main"), *command, *more],
            cwd=tmp_path,
            check=True,
            env=single_threaded_environment(),
        )
        found = text_files(tmp_path / "swept" / TRACKING / "mine.TRACKER")
        assert len(found) == 2
        assert all([step for step, _ in losses] == [0, 2] for losses in found.values())
        assert len({loss for (_, (_, loss)) in found.values()}) == 2


def test_an_unknown_tracker_and_one_named_twice_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert main(["run", "--preset", "smoke", "--out", out, "--track", "tensorbord"]) == 2
    assert "--track = 'tensorbord' is not allowed: did you mean tensorboard?" in (
        capsys.readouterr().err
    )
    with pytest.raises(UserError, match="names a tracker twice"):
        curves_of(["mlflow", "mlflow"], tmp_path)


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_missing_package_is_named_with_its_command_before_anything_is_computed(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    words = [command, "--preset", "smoke", "--out", str(tmp_path / "out"), "--track", "wandb"]
    more = ["--vary", "client.learning_rate=1,2"] if command == "sweep" else []
    assert main([*words, *more]) == 2
    assert capsys.readouterr().err == (
        "error: the package wandb is needed here and is not installed; install it with: pip "
        "install 'fedsi[wandb]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_the_page_names_the_line_of_the_table() -> None:
    page = (ROOT / "docs/add-a-tracker.md").read_text()
    assert f'"{ADDED}": "simulations.tracking.{ADDED}",' in page
    assert set(READ) == {*TRACKERS, ADDED}
