"""The rows of a run that goes on in another process, each read once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedsi.errors import UserError
from server.round_record import RoundRecord
from server.runs.rounds_file import LINE_END, ROUNDS, parse_rows


@dataclass
class _Seen:
    """What was read of the file, up to the end of a line."""

    records: list[RoundRecord] = field(default_factory=list)
    end: int = 0
    """Its number of bytes; 0 if nothing was read."""
    header: bytes = b""
    last: bytes = b""
    """Its last line; if the file has another one there, it was written anew."""
    metrics: Sequence[str] = ()


class RoundsFollower:
    """Reads on where it stopped, so that a long run is not read again for each of its rounds.

    Args:
        folder: The run's folder; it need not exist yet.
        metrics: Returns the names of its task's metrics.
    """

    def __init__(self, folder: Path, metrics: Callable[[], Sequence[str]]) -> None:
        self._path = folder / ROUNDS
        self._ask = metrics
        self._seen = _Seen()

    def records(self) -> list[RoundRecord]:
        """Return all rows so far, without a last one that is still being written.

        Raises:
            UserError: The file is missing, damaged or of another version.
        """
        last = self._seen.last
        try:
            with self._path.open("rb") as file:
                file.seek(self._seen.end - len(last))
                content = file.read()
        except OSError as error:
            self._seen = _Seen()
            raise UserError(f"cannot read {self._path}: {error.strerror}") from None
        if not content.startswith(last):  # a resumed run was cut, or its last row was amended
            self._seen = _Seen()
            return self.records()
        lines, end, _ = content.rpartition(LINE_END)
        if whole := (lines + end)[len(last) :]:
            self._add(whole)
        return self._seen.records

    def _add(self, whole: bytes) -> None:
        """Add complete lines; the file's first one has the columns' names."""
        seen = self._seen
        if not seen.end:
            seen = _Seen(metrics=self._ask())
        rows = parse_rows(seen.header + whole, self._path, seen.metrics)
        self._seen = _Seen(
            [*seen.records, *rows],
            seen.end + len(whole),
            seen.header or whole.partition(LINE_END)[0] + LINE_END,
            whole.removesuffix(LINE_END).rpartition(LINE_END)[2] + LINE_END,
            seen.metrics,
        )
