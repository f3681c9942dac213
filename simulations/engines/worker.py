"""A node in a process of its own: reads requests from a socket, answers on it, until it closes.

Started by ``own_command("simulations.engines.worker", SOCKET, POSITION, NODE, POPULATION)``; the
first two are descriptors that it inherits, the second of a file that says at which client it is.
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
from simulations.engines.wire import Frame, receive, send
from simulations.text import log_to_stderr

GRACE_SECONDS = 1.0
"""How long the process may take to end by itself when nobody listens any more."""
POSITION_BYTES = 8
READY = b"ready"
"""What the process says when it can be asked."""


def serve(connection: Connection, client_app: ClientApp, context: Context) -> None:
    """Say that it can be asked, and answer requests one by one until the other end closes."""
    try:
        connection.send_bytes(READY)
        while True:
            frame = receive(connection)
            position.leave()
            send(connection, _answer(frame, client_app, context))
    except (EOFError, ConnectionError):
        return


def _answer(frame: Frame, client_app: ClientApp, context: Context) -> Frame:
    try:
        return answer(frame, client_app, context)
    except BaseException as error:
        # Not a Ctrl-C, which this process does not hear: a client's own code raised it.
        reason = at_client(type(error).__name__, position.client)
        return Frame("error", frame.number, RecordDict(), reason)


def _end_with(descriptor: int) -> None:
    """End this process soon after the other end of a socket closed, whatever it is doing."""
    closed = select.poll()
    closed.register(descriptor, 0)  # that the other end hung up is told unasked
    closed.poll()
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def main(descriptor: str, place: str, node_id: str, population: str) -> None:
    """Serve on an inherited socket."""
    # Terminals and schedulers tell every process to stop; the grid decides when this one ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    log_to_stderr()
    threading.Thread(target=_end_with, args=[int(descriptor)], daemon=True).start()
    position.publish_in(mmap.mmap(int(place), POSITION_BYTES))
    identify(RUN_ID, int(node_id))
    serve(Connection(int(descriptor)), app, node_context(int(node_id), Path(population)))


if __name__ == "__main__":
    main(*sys.argv[1:])
