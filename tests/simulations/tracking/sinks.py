"""Sinks for tests: one that notes what it gets, and one that fails."""

import errno
from dataclasses import dataclass, field

from server.round_record import RoundRecord
from simulations.tracking.sink import Ended, Started


@dataclass
class NotingSink:
    """Notes each event, and raises in the methods that ``fails`` names."""

    fails: tuple[str, ...] = ()
    name: str = "noting"
    events: list[tuple[str, object]] = field(default_factory=list)

    def start(self, run: Started) -> None:
        self._note("start", run.fresh)

    def round(self, record: RoundRecord) -> None:
        self._note("round", record.round)

    def checkpoint(self, number: int) -> None:
        self._note("checkpoint", number)

    def end(self, ended: Ended) -> None:
        self._note("end", ended.status)

    def close(self) -> None:
        self._note("close", None)

    def _note(self, event: str, value: object) -> None:
        self.events.append((event, value))
        if event in self.fails or f"{event} {value}" in self.fails:
            raise OSError(errno.ENOSPC, "No space left on device")
