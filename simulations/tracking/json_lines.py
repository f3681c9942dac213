"""A log of a run's events, one JSON object a line: ``--log-json FILE``."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedsi.files import cannot_write, make_folder
from server.round_record import RoundRecord
from simulations.tracking.sink import Ended, Started


class JsonLines:
    """Appends to a file, each line in one write, so that readers see whole lines.

    Args:
        path: The file; it is created if necessary.

    Raises:
        UserError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.name = f"--log-json {path}"
        make_folder(path.parent)
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise cannot_write(path, error) from error

    def start(self, run: Started) -> None:
        """Write ``start``, with the experiment and the number of rounds that are already done."""
        done = run.records[-1].round if run.records else 0
        facts = {"name": run.name, **run.facts, "rounds_before": done}
        self._write("start", {**facts, "experiment": run.experiment.flat()})

    def round(self, record: RoundRecord) -> None:
        """Write ``round``, ``evaluation`` if there was one, and ``lost`` if clients were."""
        row = asdict(record)
        heldout, seconds = row.pop("heldout"), row.pop("evaluation_seconds")
        unevaluated = row.pop("unevaluated")
        self._write("round", row)
        if record.losses:
            self._write("lost", {"round": record.round, **record.losses})
        if heldout is not None:
            named = {f"heldout_{name}": value for name, value in heldout.items()}
            more = {"evaluation_seconds": seconds, "unevaluated": unevaluated}
            self._write("evaluation", {"round": record.round, **named, **more})

    def checkpoint(self, number: int) -> None:
        """Write ``checkpoint``."""
        self._write("checkpoint", {"round": number})

    def end(self, ended: Ended) -> None:
        """Write ``end``, with the summary if the run got to its end."""
        summary = ended.summary.to_json() if ended.summary else None
        self._write("end", {"status": ended.status, "reason": ended.reason, "summary": summary})

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, event: str, values: Mapping[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps(_safe({"event": event, "time": now, **values}), allow_nan=False)
        content = line.encode() + b"\n"
        while content:
            content = content[os.write(self._file, content) :]


def _safe(value: Any) -> Any:
    """Return a value for JSON, in which numbers that are not finite are null."""
    if isinstance(value, Mapping):
        return {key: _safe(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
