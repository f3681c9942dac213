"""Rows that another process writes: each is read once, and what is read is what the file holds."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsi import UserError
from fedsi.tasks.next_word import TASK
from server.round_record import RoundRecord
from server.runs import rounds_follower
from server.runs.rounds_file import LINE_END, ROUNDS, RoundsFile, parse_rows
from server.runs.rounds_follower import RoundsFollower

steps = st.lists(
    st.sampled_from(["append", "append", "half a line", "the rest", "amend", "replace", "look"]),
    max_size=30,
)


def row(number: int, loss: float = 5.0) -> RoundRecord:
    return RoundRecord(number, loss, 10, 0, 0, 0, 100, 1.0)


def metrics() -> tuple[str, ...]:
    return TASK.names


class Writer:
    """A run's rows, written as a run does: whole, in halves, the last one or all of them anew."""

    def __init__(self, folder: Path) -> None:
        self.file, self.rest = RoundsFile(folder, metrics), b""
        self.rows: list[RoundRecord] = []
        self.file.replace([])

    def do(self, step: str, mark: int) -> None:
        if self.rest or step == "the rest":
            with self.file.path.open("ab") as file:
                file.write(self.rest)
            self.rest = b""
        elif step in ("append", "half a line"):
            self.rows.append(row(len(self.rows), loss=mark))
            self.file.append(self.rows[-1])
            if step == "half a line":
                self.rest = self._cut()
        elif step == "amend" and self.rows:
            self.rows[-1] = row(len(self.rows) - 1, loss=mark)
            self.file.amend(self.rows[-1])
        elif step == "replace":
            self.rows = [row(number, loss=mark) for number in range(len(self.rows) // 2)]
            self.file.replace(self.rows)

    def _cut(self) -> bytes:
        content = self.file.path.read_bytes()
        end = content[:-2].rfind(LINE_END) + 10
        self.file.path.write_bytes(content[:end])
        return content[end:]


@settings(max_examples=200, deadline=None)
@given(steps)
def test_it_has_the_complete_lines_of_the_file_whatever_is_written(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    writer, follower = Writer(folder), RoundsFollower(folder, metrics)
    for mark, step in enumerate([*steps, "look"]):
        writer.do(step, mark)
        content = writer.file.path.read_bytes()
        whole = content[: content.rfind(LINE_END) + 2]
        assert follower.records() == parse_rows(whole, writer.file.path, metrics())
    assert follower.records() == (writer.rows[:-1] if writer.rest else writer.rows)


def test_each_row_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []

    def counting(content: bytes, path: Path, names: tuple[str, ...]) -> list[RoundRecord]:
        rows = parse_rows(content, path, names)
        parsed.extend(rows)
        return rows

    monkeypatch.setattr(rounds_follower, "parse_rows", counting)
    writer, follower = Writer(tmp_path), RoundsFollower(tmp_path, metrics)
    for mark in range(40):
        writer.do("append", mark)
        for _ in range(3):
            follower.records()
    assert parsed == writer.rows == follower.records()


def test_a_file_that_is_missing_damaged_or_of_another_task_is_refused_and_then_read(
    tmp_path: Path,
) -> None:
    follower = RoundsFollower(tmp_path, metrics)
    with pytest.raises(UserError, match="cannot read"):
        follower.records()
    RoundsFile(tmp_path, lambda: ("loss",)).replace([row(0)])
    with pytest.raises(UserError, match="another version"):
        follower.records()
    writer = Writer(tmp_path)
    writer.do("append", 1)
    assert follower.records() == writer.rows
    with writer.file.path.open("ab") as file:
        file.write(b"1,words" + LINE_END)
    with pytest.raises(UserError, match="cannot read"):
        follower.records()
    (tmp_path / ROUNDS).unlink()
    with pytest.raises(UserError, match="cannot read"):
        follower.records()
    writer = Writer(tmp_path)
    writer.do("append", 2)
    assert follower.records() == writer.rows
