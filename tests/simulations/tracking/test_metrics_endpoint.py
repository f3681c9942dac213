"""Tests of the endpoint: a real HTTP request during a run, on this machine only."""

import re
import socket
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from fedsi import Experiment
from server.round_record import RoundRecord
from simulations import simulate
from simulations.cli.main import main
from simulations.tracking import metrics_endpoint
from simulations.tracking.metrics_endpoint import MetricsEndpoint


def get(port: int, path: str = "/metrics", host: str = "localhost") -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": host})
    reply = connection.getresponse()
    content = reply.read().decode()
    connection.close()
    return reply.status, content


def port_of(endpoint: MetricsEndpoint) -> int:
    return int(re.findall(r":(\d+)/", endpoint.address)[0])


def test_metrics_are_read_while_the_run_goes_on(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    seen: list[dict[str, float]] = []

    def look(_: Experiment, record: RoundRecord) -> None:
        status, text = get(port)
        assert status == 200
        lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
        seen.append({name: float(value) for name, value in lines})
        assert text.count("# TYPE ") == len(lines)
        if record.round == 2 and len(seen) == 2:
            raise KeyboardInterrupt

    endpoint = MetricsEndpoint(0)
    port, run = port_of(endpoint), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        simulate(smoke, out=run, cache=cache, on_round=look, sinks=[endpoint])
    endpoint = MetricsEndpoint(0)
    port = port_of(endpoint)
    result = simulate(smoke, out=run, cache=cache, resume=True, on_round=look, sinks=[endpoint])
    assert [found["fedsi_round"] for found in seen] == [1, 2, 3, 4]
    assert [found["fedsi_clients_total"] for found in seen] == [10, 20, 30, 40]
    assert seen[-1]["fedsi_tokens_total"] == result.summary.tokens_trained
    assert seen[-1]["fedsi_heldout_loss"] == result.summary.heldout_loss
    assert seen[-1]["fedsi_checkpoint"] == 4
    with pytest.raises(ConnectionRefusedError):
        get(port)
    assert not [t for t in threading.enumerate() if t.name.startswith("fedsi metrics")]


def test_only_this_machine_by_its_own_name_is_answered() -> None:
    endpoint = MetricsEndpoint(0)
    try:
        port = port_of(endpoint)
        assert endpoint.address == f"http://127.0.0.1:{port}/metrics"
        assert get(port, host="evil.example")[0] == 403
        assert get(port, host=f"127.0.0.1:{port}")[0] == 200
        assert get(port, "/")[0] == 404
    finally:
        endpoint.close()


def test_a_reader_that_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_endpoint, "_SECONDS", 0.2)
    endpoint = MetricsEndpoint(0)
    try:
        with socket.create_connection(("127.0.0.1", port_of(endpoint))) as silent:
            silent.sendall(b"GET /metrics HTTP/1.1\r\n")
            assert get(port_of(endpoint))[0] == 200
            silent.settimeout(5)
            assert silent.recv(1) == b""
        with socket.create_connection(("127.0.0.1", port_of(endpoint))):
            started = time.monotonic()
            endpoint.close()
        assert time.monotonic() - started < 5
    finally:
        endpoint.close()


def test_a_port_in_use_is_one_sentence_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, out = str(taken.getsockname()[1]), tmp_path / "run"
        command = ["run", "--preset", "smoke", "--out", str(out), "--metrics-port", port]
        assert main(command) == 2
    assert capsys.readouterr().err == (
        f"error: --metrics-port {port} cannot be used: Address already in use; choose another "
        "port, or 0 for a free one\n"
    )
    assert not out.exists()
