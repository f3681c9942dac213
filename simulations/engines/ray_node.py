"""A node in a Ray actor, as its engine sees it."""

import logging
import mmap
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict

from clients.position import Position
from fedsi.errors import UserError
from fedsi.extras import optional
from fedsi.messages import REPLY_MISSING, at_client
from server.runs.provenance import differences
from simulations.engines.flower_private import ray_actor
from simulations.engines.node import node_context
from simulations.engines.ray_actor import SHARED, Facts, answering, introducing, start
from simulations.engines.wire import Frame
from simulations.engines.worker import POSITION_BYTES

log = logging.getLogger(__name__)


class RayNode:
    """A node in a Ray actor, which is started again if it dies or does not reply in time.

    Args:
        node_id: The node's id.
        population: The folder of the population that it hosts.
        place: Options of the actor: where Ray may place it.
        folder: A folder of this machine for the client that an actor of it is working on.
        facts: The facts about this machine that bits depend on, to compare with the node's.
        shared: A file where clients keep vectors, which the node must see; None if they keep none.
    """

    def __init__(
        self,
        node_id: int,
        population: Path,
        place: dict[str, Any],
        folder: Path,
        facts: Facts,
        shared: Path | None = None,
    ) -> None:
        self._ray = optional("ray", "ray")
        self._id = node_id
        self._context = node_context(node_id, population)
        self._place = place
        self._facts = facts
        self._shared = shared
        self._file = folder / f"node-{node_id}"
        self._file.write_bytes(bytes(POSITION_BYTES))
        with self._file.open("r+b") as file:
            self._position = Position()
            self._position.publish_in(mmap.mmap(file.fileno(), POSITION_BYTES))
        self._number = 0
        self._broken = ""
        self._start()

    def _start(self) -> None:
        self._position.leave()
        prepare = partial(start, self._id, Path.cwd(), self._file)
        self._actor = ray_actor().options(**self._place).remote(on_actor_init_fn=prepare)
        self._introduction = self._actor.run.remote(
            partial(introducing, self._shared or self._file), None, str(self._id), None
        )
        self._ready = False
        self.reply = self._introduction

    def is_ready(self, seconds: float = 0.0) -> bool:
        """Whether the actor accepts messages, after waiting for it up to a time limit.

        An actor that cannot be started is not started again; this is logged once.

        Raises:
            UserError: Its machine does not share the folder in which clients keep vectors.
        """
        if self._ready or self._broken:
            return self._ready
        done, _ = self._ray.wait([self._introduction], timeout=seconds)
        if done:
            try:
                _, facts, _ = self._ray.get(self._introduction)
            except self._ray.exceptions.RayError as error:
                self._broken = cause(error)
                log.warning("node %d cannot be started: %s", self._id, self._broken)
            else:
                self._ready = True
                self._compare(facts)
        return self._ready

    def send(self, frame: Frame, timeout: float) -> None:
        """Send a request; an actor that is still starting will receive it."""
        self._number = frame.number
        message = Message(frame.content, dst_node_id=self._id, message_type=frame.kind)
        self.reply = self._actor.run.remote(
            partial(answering, timeout), message, str(self._id), self._context
        )

    def receive(self) -> Frame:
        """Return the reply, which has arrived."""
        try:
            _, message, _ = self._ray.get(self.reply)
        except self._ray.exceptions.RayTaskError as error:
            return Frame("error", self._number, RecordDict(), cause(error))
        except self._ray.exceptions.RayError as error:
            return self._replaced(f"its Ray actor ended: {cause(error)}")
        if message.has_error():
            late = message.error.code == REPLY_MISSING
            kind, reason = "late" if late else "error", str(message.error.reason)
            return Frame(kind, self._number, RecordDict(), reason)
        return Frame("reply", self._number, message.content)

    def give_up(self, seconds: float) -> Frame:
        """End the actor, which has not replied in time, and start another one."""
        return self._replaced(f"it gave no answer within {seconds:.4g} s", "late")

    def end(self) -> None:
        """End the actor, whatever it is doing."""
        self._ray.kill(self._actor)

    def _replaced(self, reason: str, kind: str = "died") -> Frame:
        """Start another actor, and return the reason for the missing reply, and at which client.

        An actor that could not be started is not replaced. The client is known of an actor on this
        machine.
        """
        reason = at_client(reason, self._position.client)
        if not self._broken:
            self.end()
            self._start()
        return Frame(kind, self._number, RecordDict(), reason)

    def _compare(self, facts: Facts) -> None:
        sees = facts.pop(SHARED)
        if self._shared and not sees:
            raise UserError(
                f"node {self._id} on {facts['host']} does not have the folder "
                f"{self._shared.parent}, where the clients of this algorithm keep vectors; name "
                "with --out a folder that all machines of the cluster share"
            )
        different = differences(facts, self._facts)
        if different:
            log.warning(
                "node %d on %s may give other bits than this machine: %s",
                self._id, facts["host"], "; ".join(different),
            )  # fmt: skip


def cause(error: Exception) -> str:
    """Return the last sentence of one of Ray's errors, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    return last.partition(" Some common causes include")[0].rstrip(".")
