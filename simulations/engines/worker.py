"""A node in a separate process, which reads requests from a socket until it is closed.

Started by ``own_command("simulations.engines.worker", SOCKET, POSITION, REQUESTS, REPLIES, NODE,
POPULATION)``. The first four are inherited file descriptors: a socket, a file with the client that
the node is working on, and the shared memory of requests and of replies.
"""

import mmap
import os
import select
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from clients.app import app
from clients.position import position
from fedsi.messages import at_client
from simulations.engines.flower_private import identify
from simulations.engines.node import RUN_ID, answer, node_context
from simulations.engines.shared_memory import SharedMemoryError
from simulations.engines.wire import Channel, Frame
from simulations.safe_text import log_to_stderr

GRACE_SECONDS = 1.0
"""Time that the process has to end by itself after the other end closed."""
POSITION_BYTES = 8
READY = b"ready"
"""Message of the process when it accepts requests."""


def answer_requests(channel: Channel, client_app: ClientApp, context: Context) -> None:
    """Report readiness, and answer requests one by one until the other end closes."""
    try:
        channel.connection.send_bytes(READY)
        while True:
            frame = channel.receive()
            position.leave()
            _reply(channel, _answer(frame, client_app, context))
    except (EOFError, ConnectionError):
        return


def _answer(frame: Frame, client_app: ClientApp, context: Context) -> Frame:
    try:
        return answer(frame, client_app, context)
    except BaseException as error:
        # This cannot be a Ctrl-C, which this process ignores: a client's own code raised it.
        reason = at_client(type(error).__name__, position.client)
        return Frame("error", frame.number, RecordDict(), reason)


def _reply(channel: Channel, frame: Frame) -> None:
    try:
        channel.send(frame, shared=channel.shared)
    except SharedMemoryError as error:
        failure = Frame("error", frame.number, RecordDict(), str(error))
        channel.send(failure, shared=False)


def _end_with(descriptor: int) -> None:
    """End this process soon after the other end of a socket closed, whatever it is doing."""
    closed = select.poll()
    closed.register(descriptor, 0)  # a hang-up is always reported
    closed.poll()
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def main(
    descriptor: str, place: str, requests: str, replies: str, node_id: str, population: str
) -> None:
    """Serve on an inherited socket."""
    # Terminals and schedulers signal every process; the grid decides when this one ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    log_to_stderr()
    threading.Thread(target=_end_with, args=[int(descriptor)], daemon=True).start()
    position.publish_in(mmap.mmap(int(place), POSITION_BYTES))
    identify(RUN_ID, int(node_id))
    channel = Channel(Connection(int(descriptor)), int(replies), int(requests))
    answer_requests(channel, app, node_context(int(node_id), Path(population)))


if __name__ == "__main__":
    main(*sys.argv[1:])
