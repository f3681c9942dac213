"""A node in a separate process, as its engine sees it."""

import logging
import mmap
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from flwr.app import RecordDict

from clients.position import Position
from fedsi.errors import UserError
from fedsi.messages import at_client
from simulations.engines.ended import oom_kills, reason_of_end
from simulations.engines.processes import own_command, single_threaded_environment
from simulations.engines.shared_memory import SharedMemoryError, share_memory
from simulations.engines.wire import Channel, Frame
from simulations.engines.worker import POSITION_BYTES, READY

log = logging.getLogger(__name__)

START_SECONDS = 300.0
"""Time limit for starting a process until it accepts requests."""
GRACE_SECONDS = 2.0
"""Time limit for a process to end by itself."""
_ADVICE = "use fewer --workers, or a smaller model or client.lanes"


class WorkerNode:
    """A node in a separate process, which is restarted if it dies or does not reply in time.

    Args:
        node_id: The node's id.
        population: The folder of the population that it hosts.
        longest_wait: Seconds after which a stalled message is given up.
    """

    def __init__(self, node_id: int, population: Path, longest_wait: float) -> None:
        self._arguments = [str(node_id), str(population)]
        self._longest_wait = longest_wait
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the node
        self._file.truncate(POSITION_BYTES)
        self._position = Position()
        self._position.publish_in(mmap.mmap(self._file.fileno(), POSITION_BYTES))
        self._requests, self._replies = share_memory(), share_memory()
        self._pending: list[int] = []
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, _timeval(self._longest_wait))
        inherited = [theirs.fileno(), self._file.fileno(), self._requests, self._replies]
        self._position.leave()
        self._ready = False
        self._oom_kills = oom_kills()
        with theirs:
            self._process = subprocess.Popen(
                own_command("simulations.engines.worker", *inherited, *self._arguments),
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else None,
                env=single_threaded_environment(),
            )
        self.connection = Connection(ours.detach())
        self._channel = Channel(self.connection, self._requests, self._replies)

    @property
    def process_id(self) -> int:
        """The id of the process."""
        return self._process.pid

    def send(self, frame: Frame) -> None:
        """Send a request; a process that does not accept it is ended, which ``receive`` reports.

        Raises:
            UserError: It does not fit into shared memory.
        """
        unanswered = bool(self._pending)
        self._pending.append(frame.number)
        try:
            self._wait_until_ready()
            self._channel.send(frame, shared=not unanswered)
        except SharedMemoryError as error:
            raise UserError(str(error)) from error
        except (EOFError, OSError):
            self._process.kill()

    def receive(self) -> Frame:
        """Return the reply to the oldest request."""
        number = self._pending.pop(0)
        try:
            return self._channel.receive()
        except BlockingIOError:
            return self._replaced(number, "its answer stopped half-way")
        except (EOFError, OSError):
            return self._replaced(number)

    def give_up(self, seconds: float) -> Frame:
        """End the process, which has not replied in time, and start another one."""
        reason = f"it gave no answer within {seconds:.4g} s"
        return self._replaced(self._pending.pop(0), reason, "late")

    def close(self) -> None:
        """Close the connection, so that the process ends by itself."""
        self.connection.close()
        self._file.close()
        for memory in (self._requests, self._replies):
            os.close(memory)

    def end(self, deadline: float) -> None:
        """End the process, by force if it still runs at the deadline."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self) -> None:
        if not self._ready:
            self._ready = (
                self.connection.poll(START_SECONDS) and self.connection.recv_bytes() == READY
            )
        if not self._ready:
            raise EOFError

    def _replaced(self, number: int, reason: str = "", kind: str = "died") -> Frame:
        """Start another process; return the reason for the missing reply, and at which client."""
        if reason:
            self._process.kill()
        self.connection.close()
        self.end(time.monotonic() + GRACE_SECONDS)
        ended = reason_of_end(self._process.returncode, self._oom_kills, _ADVICE)
        reason = reason or f"its process {ended}"
        reason = at_client(reason, self._position.client)
        self._start()
        return Frame(kind, number, RecordDict(), reason)


def _timeval(seconds: float) -> bytes:
    """Return a time span in the operating system's format."""
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


def _has_descriptor(stream: object) -> bool:
    """Whether a stream is a real file, unlike some streams of notebooks and tests."""
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
    return True
