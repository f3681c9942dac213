"""A node in the process of the server."""

import os

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from clients import pool
from clients.position import position
from fedsi.messages import at_client
from simulations.engines.alarm import OutOfTimeError, time_limit
from simulations.engines.node import answer
from simulations.engines.wire import Frame


class LocalNode:
    """A node in this process. It works when its reply is requested."""

    def __init__(self, client_app: ClientApp, context: Context) -> None:
        self._client_app = client_app
        self._context = context
        self._waiting: list[Frame] = []

    @property
    def process_id(self) -> int:
        """The id of this process."""
        return os.getpid()

    def send(self, frame: Frame) -> None:
        """Accept a request."""
        self._waiting.append(frame)

    def receive(self, timeout: float) -> Frame:
        """Answer the oldest request within a time limit.

        Args:
            timeout: The time limit in seconds.
        """
        frame = self._waiting.pop(0)
        position.leave()

        def reason() -> str:
            return at_client(f"it gave no answer within {timeout:.4g} s", position.client)

        def sentence() -> str:
            return (
                f"the node failed: {reason()}, and cannot be interrupted; continue with --resume "
                "and --workers 2, where a hanging process is ended and costs one client"
            )

        try:
            with time_limit(timeout, sentence):
                return answer(frame, self._client_app, self._context)
        except OutOfTimeError:
            return Frame("late", frame.number, RecordDict(), reason())

    def close(self) -> None:
        """Release the run's resources."""
        self._waiting.clear()
        pool.forget()

    def end(self, deadline: float) -> None:
        """Do nothing, because its process is this one."""
