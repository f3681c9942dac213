"""A node in a process of its own: reads requests from a socket, answers on it, until it closes.

Started by ``own_command("simulations.engines.worker", DESCRIPTOR, NODE, POPULATION)``.
"""

import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp

from clients.app import app
from simulations.engines.flower_private import identify
from simulations.engines.node import RUN_ID, answer, node_context
from simulations.engines.wire import receive, send
from simulations.text import log_to_stderr


def serve(connection: Connection, client_app: ClientApp, context: Context) -> None:
    """Answer requests one by one until the other end closes."""
    while True:
        try:
            frame = receive(connection)
            send(connection, answer(frame, client_app, context))
        except (EOFError, ConnectionError):
            return


def main(descriptor: str, node_id: str, population: str) -> None:
    """Serve on an inherited socket."""
    # The terminal sends Ctrl-C to every process; the grid decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log_to_stderr()
    identify(RUN_ID, int(node_id))
    serve(Connection(int(descriptor)), app, node_context(int(node_id), Path(population)))


if __name__ == "__main__":
    main(*sys.argv[1:])
