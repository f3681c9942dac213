"""A node in a Ray actor, as the process of the actor sees it.

Flower's actor calls ``client_app_fn()`` and then the app that it returns. What is passed to it is a
function of this module, which Ray pickles as a name.
"""

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message

from clients.app import POPULATION, app
from clients.position import position
from fedsi.experiment import Experiment
from fedsi.messages import REPLY_MISSING, at_client
from server.runs.provenance import provenance
from simulations.engines.flower_private import CLIENT_APP_FAILED, identify
from simulations.engines.local_node import LocalNode
from simulations.engines.node import RUN_ID
from simulations.engines.wire import Frame
from simulations.engines.worker import POSITION_BYTES
from simulations.safe_text import log_to_stderr

Facts = dict[str, Any]
SHARED = "shared"


def start(node_id: int, folder: Path, place: Path) -> None:
    """Prepare the actor's process.

    Args:
        node_id: The node's id.
        folder: The server's working folder; used if this machine has it, because a user's model may
            read files there.
        place: The file for the client that the node is working on, which the server reads when the
            actor has died; only the server's machine has it.
    """
    os.dup2(2, 1)  # what a user's model prints must not mix with the command's own output
    log_to_stderr()
    identify(RUN_ID, node_id)
    if place.is_file():
        with place.open("r+b") as file:
            position.publish_in(mmap.mmap(file.fileno(), POSITION_BYTES))
    if folder.is_dir():
        os.chdir(folder)


def introducing(shared: Path) -> Callable[..., Facts]:
    """Return an app that returns the facts of this machine that bits depend on, and its name.

    It also tells whether this machine has a file that the server made where clients keep vectors.
    """

    def introduce(**_: Any) -> Facts:
        facts = provenance(Experiment(), "ray", None)
        return {**facts, "host": os.uname().nodename, SHARED: shared.is_file()}

    return introduce


def answering(timeout: float) -> Callable[[Message, Context], Message]:
    """Return an app that answers a message as the ClientApp does, within a time limit.

    An exception becomes an error reply that names the client, as in the other engines.

    Args:
        timeout: The time limit in seconds.
    """

    def answer_message(message: Message, context: Context) -> Message:
        frame = _answer(message, context, timeout)
        if frame.kind == "reply":
            return Message(frame.content, reply_to=message)
        code = REPLY_MISSING if frame.kind == "late" else CLIENT_APP_FAILED
        return Message(Error(code, frame.reason), reply_to=message)

    return answer_message


def _answer(message: Message, context: Context, timeout: float) -> Frame:
    folder = str(context.node_config[POPULATION])
    if not Path(folder).is_dir():  # another machine, which prepares the corpus in its own cache
        context.node_config[POPULATION] = ""
    node = LocalNode(app, context)
    node.send(Frame(message.metadata.message_type, 0, message.content))
    try:
        return node.receive(timeout)
    except BaseException as error:
        # Not a Ctrl-C, which Ray blocks in this process: a client's own code raised it.
        reason = at_client(type(error).__name__, position.client)
        return Frame("error", 0, message.content, reason)
