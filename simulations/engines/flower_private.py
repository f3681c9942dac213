"""Flower's private names, all in this file.

Flower 1.41 has no public interface for four things that an engine must do: set the sender of
messages, number them, label errors with Flower's codes, and run a node in an actor of its
simulation engine. A test checks the version.
"""

from typing import Any

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["CLIENT_APP_FAILED", "Run", "give_id", "identify", "ray_actor"]

CLIENT_APP_FAILED: int = ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def identify(run_id: int, node_id: int) -> None:
    """Make this process create its messages in the name of a node."""
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = node_id
    TaskIdentity.task_id = 0


def give_id(message: Message, message_id: str) -> None:
    """Give a message its id, as a SuperLink would."""
    message.metadata.__dict__["_message_id"] = message_id


def ray_actor() -> Any:
    """Return the class of the Ray actors in which Flower's simulation engine runs a ClientApp."""
    # It imports Ray, which is not always installed.
    from flwr.simulation.ray_transport.ray_actor import ClientAppActor  # noqa: PLC0415

    return ClientAppActor
