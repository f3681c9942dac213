"""A node's answer to a request, in whichever process the node lives."""

from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.app import POPULATION
from simulations.engines.wire import Frame

RUN_ID = 1
"""Flower's name for the run; an engine lives for one."""


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
    """Have the ClientApp answer a request; what it raises becomes an error."""
    try:
        message = Message(frame.content, dst_node_id=context.node_id, message_type=frame.kind)
        reply = client_app(message, context)
    except Exception as error:
        return Frame("error", frame.number, RecordDict(), reason=f"{type(error).__name__}: {error}")
    return Frame("reply", frame.number, reply.content)
