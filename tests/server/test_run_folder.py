import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsi import Experiment, UserError
from fedsi.privacy.participation import Participations
from fedsi.training.metrics import Metrics
from server.rounds import RoundRecord, State
from server.run_folder import CHECKPOINT, COLUMNS, ROUNDS, RunFolder

losses = st.floats(allow_nan=False)
records = st.builds(
    RoundRecord,
    round=st.integers(1, 10**6),
    train_loss=losses,
    clients=st.integers(0, 10**6),
    rejected=st.integers(0, 9),
    failed=st.integers(0, 9),
    dropped=st.integers(0, 9),
    tokens=st.integers(0, 10**12),
    train_seconds=losses,
    evaluation_seconds=losses,
    heldout=st.none() | st.builds(Metrics, *[losses] * 11),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records, max_size=4))
def test_rows_come_back(tmp_path: Path, rows: list[RoundRecord]) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.claim(Experiment(), overwrite=True, resume=False)
    for row in rows:
        folder.append(row)
    assert folder.records() == rows
    assert (folder.path / ROUNDS).read_text().splitlines()[0] == ",".join(COLUMNS)


def row(number: int, loss: float = 5.0) -> RoundRecord:
    return RoundRecord(number, loss, 10, 0, 0, 0, 100, 1.0)


def test_a_loss_that_is_not_a_number_comes_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    folder.append(row(1, math.nan))
    assert math.isnan(folder.records()[0].train_loss)


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    folder.append(row(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match="already holds a run; continue it with --resume"):
        folder.claim(Experiment(), overwrite=False, resume=False)
    with pytest.raises(UserError, match="holds a run of another experiment"):
        folder.claim(Experiment(seed=1), overwrite=False, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    folder.claim(Experiment(seed=1), overwrite=True, resume=False)
    assert folder.records() == []
    assert folder.experiment().seed == 1


def test_overwriting_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    folder.claim(Experiment(), overwrite=True, resume=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_places_that_cannot_be_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; name a folder with --out"):
        RunFolder(tmp_path / "file").check_free(Experiment(), overwrite=True, resume=False)
    with pytest.raises(UserError, match="holds no run to resume"):
        RunFolder(tmp_path / "empty").check_free(Experiment(), overwrite=False, resume=True)
    with pytest.raises(UserError, match="cannot write"):
        RunFolder(tmp_path / "file" / "below").claim(Experiment(), overwrite=False, resume=False)


def state(number: int) -> State:
    rng = np.random.default_rng(number)
    draw = {name: rng.normal(size=5).astype(np.float32) for name in ("p", "first", "second")}
    participations = Participations(
        np.array([0, number], np.int32), np.array([0, 1], np.int32), np.array([number], np.int32)
    )
    return State(number, draw.pop("p"), draw, participations=participations)


def test_checkpoints_come_back_and_cut_later_rows(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    for number in (1, 2, 3):
        folder.append(row(number))
    folder.save_checkpoint(state(2), "corpus")
    loaded = folder.load_checkpoint(state(0), "corpus")
    assert loaded.round_number == 2
    assert np.array_equal(loaded.parameters, state(2).parameters)
    assert loaded.optimizer.keys() == state(2).optimizer.keys()
    assert loaded.participations is not None
    assert loaded.participations.last_round.tolist() == [0, 2]
    assert loaded.participations.closest.tolist() == [2]
    loaded.participations.times[0] += 1  # it can be written to
    assert all(np.array_equal(v, state(2).optimizer[k]) for k, v in loaded.optimizer.items())
    assert folder.records() == [row(1), row(2)]


@pytest.mark.parametrize("rounds", [[], [1], [2], [1, 3], [1, 1, 2]])
def test_a_checkpoint_without_its_rows_is_refused(tmp_path: Path, rounds: list[int]) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    for number in rounds:
        folder.append(row(number))
    folder.save_checkpoint(state(2), "corpus")
    with pytest.raises(UserError, match=r"rounds\.csv lacks rows of the 2 rounds"):
        folder.load_checkpoint(state(0), "corpus")


@pytest.mark.parametrize("damage", [None, "", "canary,included\n0,True\n", "included,score\nx,1\n"])
def test_damaged_canaries_are_refused(tmp_path: Path, damage: str | None) -> None:
    folder = RunFolder(tmp_path)
    scores, included = np.array([0.5, -1.25]), np.array([True, False])
    folder.save_canaries(scores, included)
    read = folder.canaries()
    assert (read[0].tolist(), read[1].tolist()) == (scores.tolist(), included.tolist())
    path = tmp_path / "canaries.csv"
    path.unlink() if damage is None else path.write_text(damage)
    with pytest.raises(UserError, match=r"cannot read .*canaries\.csv"):
        folder.canaries()


def test_without_a_checkpoint_a_run_starts_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    folder.append(row(1))
    assert folder.load_checkpoint(state(0), "corpus").round_number == 0
    assert folder.records() == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_damaged_checkpoint_is_refused_or_harmless(tmp_path: Path, place: int, flip: int) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=True, resume=False)
    for number in (1, 2):
        folder.append(row(number))
    folder.save_checkpoint(state(2), "corpus")
    path = tmp_path / CHECKPOINT
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= flip
    path.write_bytes(data)
    try:
        loaded = folder.load_checkpoint(state(0), "corpus")
    except UserError as error:
        assert "--overwrite" in str(error)  # noqa: PT017
        return
    assert len(loaded.parameters) == 5


def test_a_checkpoint_of_another_corpus_or_cut_short_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    folder.save_checkpoint(state(2), "corpus")
    with pytest.raises(UserError, match="made from another corpus"):
        folder.load_checkpoint(state(0), "other")
    data = (tmp_path / CHECKPOINT).read_bytes()
    for cut in (0, 4, 30, len(data) - 1):
        (tmp_path / CHECKPOINT).write_bytes(data[:cut])
        with pytest.raises(UserError, match="damaged"):
            folder.load_checkpoint(state(0), "corpus")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("round,loss\r\n1,5.0\r\n", "columns of another version of fedsi"),
        (",".join(COLUMNS) + "\r\n1,high\r\n", "cannot read .*start again with --overwrite"),
        ("", "columns of another version"),
    ],
)
def test_rows_that_are_not_ours_are_refused(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / ROUNDS).write_text(content)
    with pytest.raises(UserError, match=expected):
        RunFolder(tmp_path).records()
