"""Contestants: processes that run a round for each line they receive and reply with the result."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from simulations.benchmarks.machine import BenchmarkError
from simulations.engines.processes import single_threaded_environment


class Contestant:
    """A running process.

    Args:
        name: Its name in errors.
        process: Reads lines and replies to each with a line of JSON.
    """

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self._name = name
        self._process = process

    def begin(self) -> None:
        """Start a round.

        Raises:
            BenchmarkError: The process has ended.
        """
        assert self._process.stdin is not None  # noqa: S101  # it is a pipe
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._silent(error) from error

    def end(self) -> dict[str, Any]:
        """Wait for the reply, which contains at least the round's ``seconds``.

        Raises:
            BenchmarkError: There was no reply.
        """
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        try:
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise self._silent(error) from error
        return answer

    def round(self) -> dict[str, Any]:
        """Run a round and return the reply.

        Raises:
            BenchmarkError: There was no reply.
        """
        self.begin()
        return self.end()

    def finish(self) -> None:
        """Let the process finish.

        Raises:
            BenchmarkError: It failed.
        """
        self._process.communicate()
        if self._process.returncode:
            raise BenchmarkError(f"{self._name} ended with code {self._process.returncode}")

    def _silent(self, error: Exception) -> BenchmarkError:
        return BenchmarkError(f"{self._name} did not say how long a round took: {error}")


@contextmanager
def contestant(
    name: str, command: Sequence[str], *, environment: Mapping[str, str] | None = None
) -> Iterator[Contestant]:
    """Start a process, which is killed at the end unless it has finished.

    Args:
        name: Its name in errors.
        command: The command.
        environment: Environment of the process; None for fedsi's own, with one thread for numerics.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=single_threaded_environment() if environment is None else environment,
        text=True,
    ) as process:
        try:
            yield Contestant(name, process)
        finally:
            process.kill()
            # Unsent input for a dead process must not make closing its pipe fail.
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
