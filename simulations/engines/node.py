"""A node's reply to a request, in the server's or a separate process."""

from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.app import POPULATION
from simulations.engines.wire import Frame

RUN_ID = 1
"""Flower's id of the run; an engine has a single run."""


def node_context(node_id: int, population: Path) -> Context:
    """Return the context of a node that hosts a population."""
    return Context(
        run_id=RUN_ID,
        node_id=node_id,
        node_config={POPULATION: str(population)},
        state=RecordDict(),
        run_config={},
    )


def answer(frame: Frame, client_app: ClientApp, context: Context) -> Frame:
    """Let the ClientApp answer a request; exceptions become errors."""
    try:
        message = Message(frame.content, dst_node_id=context.node_id, message_type=frame.kind)
        reply = client_app(message, context)
    except Exception as error:
        return Frame("error", frame.number, RecordDict(), reason=f"{type(error).__name__}: {error}")
    return Frame("reply", frame.number, reply.content)
