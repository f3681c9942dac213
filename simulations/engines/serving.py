"""The server, run over an engine's nodes."""

from collections.abc import Sequence

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from server.app import PARAMETERS, RESULT, ROWS, SUMMARY, serve
from server.configuration import RunConfiguration
from server.observers import Observer
from server.runs.summary import Summary
from simulations.engines.node import RUN_ID
from simulations.engines.table import EngineResult

SERVER_NODE = 1


def served(
    grid: Grid, config: RunConfiguration, observers: Sequence[Observer] = ()
) -> EngineResult:
    """Run the server over a grid with connected nodes.

    Args:
        grid: Flower's connection to the nodes.
        config: The experiment, and how to run it.
        observers: Called after each round, in this order.

    Raises:
        UserError: The experiment or its folder cannot be used.
        NodesError: No node can serve it.
    """
    context = Context(
        run_id=RUN_ID,
        node_id=SERVER_NODE,
        node_config={},
        state=RecordDict(),
        run_config=config.to_flower(),
    )
    serve(grid, context, config, observers)
    text = str(context.state.config_records[RESULT][SUMMARY])
    summary = Summary.from_text(text, "the result of the server")
    rows = str(context.state.config_records[RESULT][ROWS])
    return EngineResult(summary, context.state.array_records[PARAMETERS][PARAMETERS].numpy(), rows)
