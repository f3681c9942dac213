"""The processes of a study's trials, as the study sees them."""

import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Self

from simulations.engines.ended import oom_kills, reason_of_end
from simulations.engines.processes import own_command, single_threaded_environment
from simulations.studies.trial import GRACE_SECONDS

WITHOUT_FORK_SERVER = "the process that starts the trials has ended"
_ADVICE = (
    "run fewer trials at a time with --jobs, or make the model or client.lanes smaller, and "
    "continue with --resume"
)


@dataclass
class TrialProcess:
    """A trial's process."""

    pid: int
    errors: IO[bytes]
    """What it wrote to standard error."""
    stdin: IO[bytes]
    """Stays open: the process sees it close when the study's process ends, however it ends."""
    returncode: int | None = None
    """Exit code, negative for a signal; None while it is running."""
    oom_kills: int = field(default_factory=oom_kills)
    """The kernel's count of kills for lack of memory when it was started."""

    def close(self) -> None:
        """Release the resources of a finished process."""
        self.errors.close()
        with suppress(BrokenPipeError):
            self.stdin.close()

    def last_words(self) -> str:
        """Return why it ended: the last line that it wrote, unless a signal ended it."""
        line, code = _last_line(self.errors), self.returncode
        if line and (code is None or code >= 0 or line.startswith(WITHOUT_FORK_SERVER)):
            return line
        return f"it {reason_of_end(code, self.oom_kills, _ADVICE)}"

    def signal(self, number: int) -> None:
        """Send it a signal if it is running."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)


@dataclass
class TrialProcesses:
    """The running trials of a study, forked from one process; a context manager that stops them.

    If that process dies, its trials fail, and the next trial gets another one.
    """

    _running: dict[int, TrialProcess] = field(default_factory=dict)
    _server: subprocess.Popen[bytes] | None = None
    _channel: socket.socket | None = None
    _errors: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    _heard: bytes = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for trial in self._running.values():
            trial.signal(signal.SIGTERM)  # a shell may make processes ignore SIGINT
        self._wait_for_all(time.monotonic() + GRACE_SECONDS)
        for trial in self._running.values():
            trial.kill()
        self._wait_for_all(time.monotonic() + GRACE_SECONDS)
        self._close()
        self._errors.close()

    def start(self, arguments: Sequence[object], line: str) -> TrialProcess:
        """Start a trial.

        Args:
            arguments: The arguments of ``simulations.studies.trial.main``.
            line: The line that it reads from standard input.
        """
        if self._channel is None:
            self._start_server()
        errors = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        theirs, ours = os.pipe()
        trial = TrialProcess(0, errors, os.fdopen(ours, "wb"))
        request = json.dumps([str(argument) for argument in arguments]).encode()
        try:
            if self._channel:
                socket.send_fds(self._channel, [request], [theirs, errors.fileno()])
                self._read_until_started(trial)
        except (BrokenPipeError, ConnectionResetError):
            self._server_ended()
        finally:
            os.close(theirs)
        if trial.pid == 0:
            errors.write(self._why_none().encode())
            trial.returncode = 1
            return trial
        with suppress(BrokenPipeError):
            trial.stdin.write(line.encode() + b"\n")
            trial.stdin.flush()
        return trial

    def wait(self, seconds: float) -> None:
        """Wait for trials to end; sets their exit codes."""
        if self._channel is None:
            time.sleep(seconds)
            return
        ready, _, _ = select.select([self._channel], [], [], seconds)
        if ready:
            self._read(None)

    def _start_server(self) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._server = subprocess.Popen(
                own_command("simulations.studies.fork_server", theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
                env=single_threaded_environment(),
            )

    def _read_until_started(self, trial: TrialProcess) -> None:
        while self._channel and trial.pid == 0:
            self._read(trial)

    def _read(self, starting: TrialProcess | None) -> None:
        """Read the next answers, or notice that there will be none."""
        received = self._channel.recv(1 << 16) if self._channel else b""
        if not received:
            self._server_ended()
            return
        *lines, self._heard = (self._heard + received).split(b"\n")
        for line in lines:
            what, pid, *code = line.decode().split()
            if what == "started" and starting:
                starting.pid = int(pid)
                self._running[starting.pid] = starting
            elif what == "ended":
                self._running.pop(int(pid)).returncode = int(code[0])

    def _server_ended(self) -> None:
        """End the trials whose end nobody would report."""
        for trial in self._running.values():
            trial.kill()
            trial.returncode = -signal.SIGKILL
            trial.errors.seek(0, os.SEEK_END)
            trial.errors.write(f"\n{self._why_none()}".encode())
        self._running.clear()
        self._close()

    def _why_none(self) -> str:
        line = _last_line(self._errors)
        return f"{WITHOUT_FORK_SERVER}: {line}" if line else WITHOUT_FORK_SERVER

    def _wait_for_all(self, deadline: float) -> None:
        while self._running and (left := deadline - time.monotonic()) > 0:
            self.wait(left)

    def _close(self) -> None:
        if self._channel:
            self._channel.close()
        if self._server:
            self._server.wait(GRACE_SECONDS)
        self._channel, self._server, self._heard = None, None, b""


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
