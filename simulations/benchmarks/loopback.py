"""A SuperLink and SuperNodes on this machine, for measurements and tests of deployed runs."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from fedsi.data.shards import write_shards
from simulations.benchmarks.machine import BenchmarkError
from simulations.engines.deployed import QUIET
from simulations.engines.processes import own_command
from simulations.engines.table import EngineOptions

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
PATIENCE = 120.0
"""Seconds to wait for the SuperLink to listen."""
GRACE_SECONDS = 5.0
"""Seconds that a process has to end by itself."""


def free_port() -> int:
    """Return a port of this machine that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Deployment:
    """A SuperLink without TLS, and a SuperNode with its ``fedsi node`` for each population.

    A context manager, which starts the processes and ends them.

    Args:
        folder: Place of secrets, logs and Flower's state.
        populations: The population of each SuperNode.
        starts_processes: Whether the SuperNodes start a process for each message themselves.
    """

    def __init__(
        self, folder: Path, populations: Sequence[Path], *, starts_processes: bool = False
    ) -> None:
        self.folder, self.populations = folder, populations
        self.starts_processes = starts_processes
        self.port = free_port()
        self.ports = [free_port() for _ in populations]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.secret = folder / "secret"
        self.secret.write_bytes(secrets.token_bytes(32))

    def __enter__(self) -> Self:
        try:
            self.start_superlink()
            for number in range(len(self.populations)):
                self.start_supernode(number)
                if not self.starts_processes:
                    self.start_node(number)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for name in list(self.processes):
            self.kill(name, signal.SIGTERM)

    def options(self) -> EngineOptions:
        """Return the options of a run on these nodes."""
        return EngineOptions(
            superlink=f"127.0.0.1:{self.port}", superlink_secret=self.secret, insecure=True
        )

    def start_superlink(self) -> None:
        """Start the SuperLink and wait until it listens.

        Raises:
            BenchmarkError: It ended, or did not listen in time.
        """
        self._start(
            "superlink",
            [SCRIPTS / "flower-superlink", "--insecure", "--host", "127.0.0.1"],
            ["--port", self.port, "--isolation", "process"],
            ["--superexec-auth-secret-file", self.secret],
            ["--disable-runtime-dependency-installation"],
        )
        self._wait_for(self.port, "superlink")

    def start_supernode(self, number: int) -> None:
        """Start the SuperNode of a population."""
        population = f'population="{self.populations[number]}"'
        isolation = "subprocess" if self.starts_processes else "process"
        self._start(
            f"supernode{number}",
            [SCRIPTS / "flower-supernode", "--insecure"],
            ["--superlink", f"127.0.0.1:{self.port}", "--host", "127.0.0.1"],
            ["--port", self.ports[number], "--isolation", isolation],
            ["--superexec-auth-secret-file", self.secret, "--node-config", population],
        )

    def start_node(self, number: int) -> None:
        """Start the ``fedsi node`` of a SuperNode."""
        self._start(
            f"node{number}",
            own_command("simulations.cli.main", "node"),
            ["--supernode", f"127.0.0.1:{self.ports[number]}", "--secret", self.secret],
        )

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """End a process that was started here, with all that it started."""
        process = self.processes.pop(name)
        if process.poll() is None:
            os.killpg(process.pid, number)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, name: str, *arguments: Sequence[object]) -> None:
        environment = {**os.environ, **QUIET, "FLWR_HOME": str(self.folder / name)}
        environment["PYTHONPATH"] = str(ROOT)
        environment["PATH"] = f"{SCRIPTS}{os.pathsep}{environment['PATH']}"
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(word) for part in arguments for word in part],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_for(self, port: int, name: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            if self.processes[name].poll() is not None or time.monotonic() > deadline:
                log = (self.folder / f"{name}.log").read_text(errors="replace")
                raise BenchmarkError(f"the {name} does not listen: {log[-1000:]}")
            time.sleep(0.2)


@contextmanager
def two_supernodes(population: Path) -> Iterator[EngineOptions]:
    """Yield the options of a run on two SuperNodes of this machine, each with half of a population.

    Args:
        population: The folder of the whole population.

    Raises:
        BenchmarkError: The SuperLink cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="fedsi-deployment-") as place:
        shards = write_shards(population, Path(place), 2)
        with Deployment(Path(place), shards) as running:
            yield running.options()
