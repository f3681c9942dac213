"""The process that answers a SuperNode's messages: it starts once, not once for each message.

Flower starts a process for each message, which imports everything and opens the population again.
A SuperNode with ``--isolation process`` instead lets this process take its messages, one at a time.
The population, the model and the compiled code stay in memory, and the code is this installation's,
not the one that a server sent.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import closing

import fedsi
from clients.app import app
from fedsi.errors import UserError
from simulations.engines.deployed import QUIET, on_this_machine

RECONNECT_SECONDS = 1.0
"""Interval of attempts to reach a SuperNode that is not there."""

log = logging.getLogger(__name__)


def serve_supernode(
    address: str, secret: bytes, told: Callable[[str], None], messages: int | None = None
) -> None:
    """Answer the messages of a SuperNode on this machine, until interrupted.

    A SuperNode that is not there yet, or is restarted, is waited for.

    Args:
        address: HOST:PORT of the SuperNode's Runtime API, a loopback address.
        secret: Content of the SuperNode's ``--superexec-auth-secret-file``.
        told: Called with a line for each message and each change of the connection.
        messages: Number of messages after which to return; None for no limit.

    Raises:
        UserError: The address is not on this machine, or the SuperNode has another secret.
    """
    os.environ.update(QUIET)  # before Flower is imported, which reads it
    from simulations.engines import flower_remote  # noqa: PLC0415

    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not on_this_machine(host):
        raise UserError(
            f"the SuperNode's address {address!r} is not allowed: expected HOST:PORT on this "
            "machine, such as 127.0.0.1:9094"
        )
    endpoint, connected, answered = flower_remote.Endpoint(address, insecure=True), None, 0
    while messages is None or answered < messages:
        try:
            if not connected:
                _check_secret(flower_remote.accepts(endpoint, secret), address)
                told(f"connected to the SuperNode at {address}")
                connected = True
            with closing(flower_remote.runtime_client(endpoint, secret=secret)) as client:
                while messages is None or answered < messages:
                    task = flower_remote.acquire(client, flower_remote.CLIENT_APP)
                    if task is None:
                        time.sleep(flower_remote.POLL_SECONDS)
                        continue
                    began = time.perf_counter()
                    line = flower_remote.answer_task(endpoint, task[1], app, fedsi.__version__)
                    told(f"{line} ({time.perf_counter() - began:.1f} s)")
                    answered += 1
        # Flower raises RuntimeError for a task that was taken back meanwhile.
        except (*flower_remote.REMOTE_ERRORS, RuntimeError) as error:
            if connected in {None, True}:
                told(f"waiting for the SuperNode at {address}: {flower_remote.reason_of(error)}")
            connected = False
            time.sleep(RECONNECT_SECONDS)


def _check_secret(accepted: bool, address: str) -> None:
    if not accepted:
        raise UserError(
            f"the SuperNode at {address} has another secret; name the file of its "
            "--superexec-auth-secret-file with --secret"
        )
