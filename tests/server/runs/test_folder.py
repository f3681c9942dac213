import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from fedsi import Experiment, UserError
from fedsi.privacy.participation import Participations
from fedsi.tasks.next_word import TASK
from server.round_record import RoundRecord
from server.rounds import ServerState
from server.runs.checkpoint import CHECKPOINT
from server.runs.folder import RunFolder
from server.runs.rounds_file import ROUNDS, columns_of
from tests.summaries import SUMMARY

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
    heldout=st.none() | st.fixed_dictionaries(dict.fromkeys(TASK.names, losses)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records, max_size=4))
def test_rows_come_back(tmp_path: Path, rows: list[RoundRecord]) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.claim(Experiment(), overwrite=True, resume=False)
    for row in rows:
        folder.append(row)
    assert folder.records() == rows
    assert (folder.path / ROUNDS).read_text().splitlines()[0] == ",".join(columns_of(TASK.names))


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
    with pytest.raises(UserError, match="cannot write"):
        RunFolder(tmp_path / "file" / "below").claim(Experiment(), overwrite=False, resume=False)


def state(number: int) -> ServerState:
    rng = np.random.default_rng(number)
    draw = {name: rng.normal(size=5).astype(np.float32) for name in ("p", "first", "second")}
    participations = Participations(
        np.array([0, number], np.int32), np.array([0, 1], np.int32), np.array([number], np.int32)
    )
    return ServerState(number, draw.pop("p"), draw, participations=participations)


def test_checkpoints_come_back_and_cut_later_rows(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    for number in (1, 2, 3):
        if number == 2:
            folder.save_checkpoint(state(2), row(2), "corpus")
        folder.append(row(number))
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


LOST_OR_CHANGED = {
    "all rows": lambda content: content[: content.index(b"\r\n") + 2],
    "the first row": lambda content: content.replace(content.splitlines(True)[1], b""),
    "a digit": lambda content: content.replace(b"5.0", b"4.0", 1),
    "a row twice": lambda content: content + content.splitlines(True)[1],
    "a column's name": lambda content: content.replace(b"tokens", b"tokenz"),
}


@pytest.mark.parametrize("name", LOST_OR_CHANGED)
def test_rows_that_the_run_did_not_write_are_refused(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    for number in (1, 2, 3):
        folder.append(row(number))
    folder.save_checkpoint(state(3), row(3), "corpus")
    path = tmp_path / ROUNDS
    changed = LOST_OR_CHANGED[name](path.read_bytes())
    path.write_bytes(changed)
    if name == "a row twice":  # after the checkpoint's round, and so cut off
        folder.load_checkpoint(state(0), "corpus")
        assert RunFolder(tmp_path).records() == [row(1), row(2), row(3)]
        return
    with pytest.raises(UserError, match=r"rounds\.csv does not hold the rows that the run wrote"):
        RunFolder(tmp_path).load_checkpoint(state(0), "corpus")


@pytest.mark.parametrize("last", [0, 1, 2])
@pytest.mark.parametrize("written", [True, False])
def test_rows_of_round_0_come_first(tmp_path: Path, last: int, *, written: bool) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    for number in range(last + written):
        folder.append(row(number))
    folder.save_checkpoint(state(last), row(last), "corpus")
    again = RunFolder(tmp_path)
    assert again.load_checkpoint(state(0), "corpus").round_number == last
    assert again.records() == [row(number) for number in range(last + 1)]
    again.append(row(last + 1))
    again.save_checkpoint(state(last + 1), row(last + 1), "corpus")
    lost = (tmp_path / ROUNDS).read_bytes().splitlines(keepends=True)
    (tmp_path / ROUNDS).write_bytes(b"".join([lost[0], *lost[2:]]))  # without round 0
    with pytest.raises(UserError, match=r"rounds\.csv does not hold the rows that the run wrote"):
        RunFolder(tmp_path).load_checkpoint(state(0), "corpus")


@pytest.mark.parametrize("written", [True, False])
def test_the_checkpoint_has_the_row_of_its_round(tmp_path: Path, written: bool) -> None:
    """A run may be killed between its round's checkpoint and its round's row."""
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    folder.append(row(1))
    if written:
        folder.append(row(2))
    folder.save_checkpoint(state(2), row(2), "corpus")
    again = RunFolder(tmp_path)
    assert again.load_checkpoint(state(0), "corpus").round_number == 2
    assert again.records() == [row(1), row(2)]
    again.append(row(3))
    again.save_checkpoint(state(3), row(3), "corpus")
    assert RunFolder(tmp_path).load_checkpoint(state(0), "corpus").round_number == 3


def test_canaries_come_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    scores, included = np.array([0.5, -1.25]), np.array([True, False])
    folder.claim(Experiment(), overwrite=False, resume=False)
    folder.save_canaries(scores, scores**2, included)
    read = folder.canaries()
    assert (read[0].tolist(), read[1].tolist()) == (scores.tolist(), included.tolist())


def test_without_a_checkpoint_a_run_starts_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    folder.append(row(1))
    assert folder.load_checkpoint(state(0), "corpus").round_number == 0
    assert folder.records() == []


def test_no_flipped_byte_of_a_checkpoint_is_accepted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=True, resume=False)
    for number in (1, 2):
        folder.append(row(number))
    folder.save_checkpoint(state(2), row(2), "corpus")
    path = tmp_path / CHECKPOINT
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(sound), 200, replace=False).tolist():
        data = bytearray(sound)
        data[place] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        try:
            loaded = folder.load_checkpoint(state(0), "corpus")
        except UserError as error:
            assert "is damaged" in str(error)  # noqa: PT017
            assert "--overwrite" in str(error)  # noqa: PT017
            continue
        # Spaces that pad the header do not matter.
        assert sound[place : place + 1] == b" "
        assert np.array_equal(loaded.parameters, state(2).parameters)


def test_a_checkpoint_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=True, resume=False)
    folder.save_checkpoint(state(1), row(1), "corpus")
    assert (tmp_path / CHECKPOINT).stat().st_mode & 0o777 == 0o600


def test_a_checkpoint_of_another_corpus_or_cut_short_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    folder.save_checkpoint(state(1), row(1), "corpus")
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
        (
            ",".join(columns_of(TASK.names)) + "\r\n1,high\r\n",
            "cannot read .*start again with --overwrite",
        ),
        ("", "columns of another version"),
    ],
)
def test_rows_that_are_not_ours_are_refused(tmp_path: Path, content: str, expected: str) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.claim(Experiment(), overwrite=True, resume=False)
    (folder.path / ROUNDS).write_text(content)
    with pytest.raises(UserError, match=expected):
        folder.records()


READ: dict[str, Callable[[RunFolder], object]] = {
    "experiment.toml": RunFolder.experiment,
    "summary.json": RunFolder.summary,
    "model.safetensors": RunFolder.model,
    "rounds.csv": RunFolder.records,
    "vocabulary.txt": RunFolder.check_vocabulary,
    "canaries.csv": RunFolder.canaries,
    "checksums.json": RunFolder.experiment,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of a run that has ended."""
    folder = RunFolder(tmp_path_factory.mktemp("finished"))
    folder.claim(Experiment(), overwrite=False, resume=False)
    folder.save_vocabulary("vocabulary.txt", "# words are split at letters\nword\n")
    folder.append(row(1))
    folder.save_canaries(np.array([0.5]), np.array([0.25]), np.array([True]))
    folder.finish(SUMMARY, save({"p": np.ones(3, np.float32)}))
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


@pytest.mark.parametrize("damage", ["flipped", "emptied", "missing"])
@pytest.mark.parametrize("name", READ)
def test_what_is_read_back_is_what_was_written(
    tmp_path: Path, finished: dict[str, bytes], name: str, damage: str
) -> None:
    for file, content in finished.items():
        (tmp_path / file).write_bytes(content)
    READ[name](RunFolder(tmp_path))
    path = tmp_path / name
    match damage:
        case "missing":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "flipped":
            data = bytearray(finished[name])
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    with pytest.raises(UserError, match=f"{name}.*(put back the file|--overwrite)"):
        READ[name](RunFolder(tmp_path))


def test_an_emptied_experiment_is_never_the_default_one(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").touch()
    with pytest.raises(UserError, match="is damaged: it is not a whole experiment"):
        RunFolder(tmp_path).check_free(Experiment(), overwrite=False, resume=True)


def test_a_run_that_was_killed_before_it_began_begins(tmp_path: Path) -> None:
    experiment = Experiment(seed=3)
    (tmp_path / "experiment.toml").write_text(experiment.to_toml())
    folder = RunFolder(tmp_path)
    with pytest.raises(UserError, match="already holds a run"):
        folder.claim(experiment, overwrite=False, resume=False)
    folder.claim(experiment, overwrite=False, resume=True)
    assert folder.load_checkpoint(state(0), "corpus").round_number == 0
    assert RunFolder(tmp_path).experiment() == experiment


def test_a_run_of_which_there_is_nothing_begins(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new")
    folder.claim(Experiment(seed=3), overwrite=False, resume=True)
    assert folder.experiment().seed == 3


def test_the_summary_counts_when_its_checksum_is_there(tmp_path: Path) -> None:
    """A run may be killed before: then its checkpoint is there too."""
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    (tmp_path / "summary.json").write_text("{}")
    assert folder.summary() is None
