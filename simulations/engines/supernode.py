"""The process that answers a SuperNode's messages: it starts once, not once for each message.

Flower starts a process for each message, which imports everything and opens the population again.
A SuperNode with ``--isolation process`` instead lets this process take its messages, one at a time.
The population, the model and the compiled code stay in memory, and the code is this installation's,
not the one that a server sent.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import closing

from flwr.app import Message, MessageType

import fedsi
from clients.app import app
from fedsi.errors import UnfinishedError, UserError
from fedsi.experiment import Experiment
from fedsi.messages import VALUES
from server.nodes import PREPARING_TIMEOUT
from simulations.engines.deployed import QUIET, on_this_machine

RECONNECT_SECONDS = 1.0
"""Interval of attempts to reach a SuperNode that is not there."""

log = logging.getLogger(__name__)


def serve_supernode(
    address: str,
    secret: bytes,
    told: Callable[[str], None],
    messages: int | None = None,
    longest_wait: float = math.inf,
) -> None:
    """Answer the messages of a SuperNode on this machine, until interrupted.

    A SuperNode that is not there yet, or is restarted, is waited for. A message whose client hangs
    is given up after the time limit of its experiment.

    Args:
        address: HOST:PORT of the SuperNode's Runtime API, a loopback address.
        secret: Content of the SuperNode's ``--superexec-auth-secret-file``.
        told: Called with a line for each message and each change of the connection.
        messages: Number of messages after which to return; None for no limit.
        longest_wait: Seconds to wait for a SuperNode that is not there.

    Raises:
        UnfinishedError: The SuperNode was not there for so long.
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
    seen = time.monotonic()
    while messages is None or answered < messages:
        try:
            if not connected:
                _check_secret(flower_remote.accepts(endpoint, secret), address)
                told(f"connected to the SuperNode at {address}")
                connected = True
            with closing(flower_remote.runtime_client(endpoint, secret=secret)) as client:
                while messages is None or answered < messages:
                    task = flower_remote.acquire(client, flower_remote.CLIENT_APP)
                    seen = time.monotonic()
                    if task is None:
                        time.sleep(flower_remote.POLL_SECONDS)
                        continue
                    began = time.perf_counter()
                    line = flower_remote.answer_task(
                        endpoint, task[1], app, fedsi.__version__, limit_of
                    )
                    told(f"{line} ({time.perf_counter() - began:.1f} s)")
                    answered += 1
        # Flower raises RuntimeError for a task that was taken back meanwhile.
        except (*flower_remote.REMOTE_ERRORS, RuntimeError) as error:
            if connected in {None, True}:
                told(f"waiting for the SuperNode at {address}: {flower_remote.reason_of(error)}")
            connected = False
            if time.monotonic() - seen > longest_wait:
                raise UnfinishedError(
                    f"the SuperNode at {address} was not there for {longest_wait:g} s; start it, "
                    "and then fedsi node again"
                ) from None
            time.sleep(RECONNECT_SECONDS)


def limit_of(message: Message) -> float:
    """Return the time limit for the reply to a message: that of its experiment, in seconds.

    The first message of a run may let the node prepare a corpus of any size.
    """
    if message.metadata.message_type.startswith(MessageType.QUERY):
        return PREPARING_TIMEOUT
    toml = str(message.content.config_records[VALUES]["experiment"])
    return Experiment.from_toml(toml).server.round_timeout


def _check_secret(accepted: bool, address: str) -> None:
    if not accepted:
        raise UserError(
            f"the SuperNode at {address} has another secret; name the file of its "
            "--superexec-auth-secret-file with --secret"
        )
