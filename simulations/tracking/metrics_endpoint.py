"""Live metrics of a run in Prometheus' text format, on this machine only: ``--metrics-port``."""

import threading
from collections.abc import Mapping

from fedsi.errors import UserError
from fedsi.messages import FAILED, REJECTED
from server.round_record import RoundRecord
from simulations.loopback import HOST, NAMES, LoopbackHandler, LoopbackServer
from simulations.tracking.curves import values_of
from simulations.tracking.sink import Ended, Started

PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = 5.0
"""Longest time that closing waits for a request."""
_SUMS = (
    "clients", "rejected", "failed", "dropped", "lost", "clipped", "tokens", "train_seconds",
    "evaluation_seconds", "download_bytes", "upload_bytes", "repeats",
    *(kind.name.lower() for kind in sorted(REJECTED | FAILED)),
)  # fmt: skip
"""Columns that are added up over the rounds; of others the last value is given."""


class Exposition:
    """The sums and the last values of a run's rounds, as text."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys(_SUMS, 0.0)
        self._last: dict[str, float] = {}
        self._seen = -1
        self.text = ""
        """Replaced whole after each round, so that another thread can read it."""

    def start(self, rounds: int) -> None:
        """Note the number of rounds."""
        self._last |= {"rounds_planned": rounds, "round": 0, "checkpoint": 0, "running": 1}
        self._write()

    def add(self, record: RoundRecord) -> None:
        """Add a round; one that is run again after a resumption is added once."""
        if record.round <= self._seen:
            return
        self._seen = record.round
        values = values_of(record)
        for name in _SUMS:
            self._sums[name] += values.pop(name)
        self._last |= {**values, "round": record.round}
        self._write()

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._last[name] = value
        self._write()

    def _write(self) -> None:
        sums = {f"{name}_total": value for name, value in self._sums.items()}
        self.text = "".join(_lines("counter", sums)) + "".join(_lines("gauge", self._last))


def _lines(kind: str, values: Mapping[str, float]) -> list[str]:
    return [
        f"# TYPE fedsi_{name} {kind}\nfedsi_{name} {value!r}\n" for name, value in values.items()
    ]


class _Server(LoopbackServer):
    metrics: Exposition


class _Handler(LoopbackHandler):
    server: _Server

    def do_GET(self) -> None:  # noqa: N802 - so named by http.server
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in NAMES:
            self.send_error(403)
        elif self.path != PATH:
            self.send_error(404)
        else:
            content = self.server.metrics.text.encode()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)


class MetricsEndpoint:
    """Serves the metrics until it is closed.

    Args:
        port: The port; 0 takes a free one.

    Raises:
        UserError: The port cannot be used.
    """

    def __init__(self, port: int) -> None:
        self.name = "--metrics-port"
        try:
            self._server = _Server((HOST, port), _Handler)
        except OSError as error:
            raise UserError(
                f"--metrics-port {port} cannot be used: {error.strerror}; choose another port, or "
                "0 for a free one"
            ) from error
        self._server.metrics = self._metrics = Exposition()
        self._thread = threading.Thread(
            name="fedsi metrics",
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            daemon=True,
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """The address of the metrics."""
        return f"http://{HOST}:{self._server.server_port}{PATH}"

    def start(self, run: Started) -> None:
        """Begin with the rounds from before."""
        self._metrics.start(run.experiment.server.rounds)
        for record in run.records:
            self._metrics.add(record)

    def round(self, record: RoundRecord) -> None:
        """Add a round."""
        self._metrics.add(record)

    def checkpoint(self, number: int) -> None:
        """Note the round from which the run could be resumed."""
        self._metrics.set("checkpoint", number)

    def end(self, ended: Ended) -> None:
        """Note the end."""
        del ended
        self._metrics.set("running", 0)

    def close(self) -> None:
        """Stop the server and its thread."""
        # Not called here, because it would wait for a request that is being answered.
        threading.Thread(target=self._server.shutdown, daemon=True).start()
        self._thread.join(_SECONDS)
        self._server.server_close()
