"""The peer process of Flower's simulation; for a Python with ``flwr[simulation]`` 1.41.

Started as ``python flower_peer.py FOLDER``; it replies like ``pfl_peer``. As in Flower's examples,
each client is a node: Ray runs them on one core, and ``FedAvg`` averages their results.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from natural import NaturalModel, named_parameters

_ANSWERS = os.dup(1)
"""Descriptor for replies; Flower's own output goes to standard error."""


def client_app(folder: Path) -> ClientApp:
    """Return the app of a client: local SGD on the rows of its visit."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        settings = json.loads((folder / "settings.json").read_text())
        number = int(str(message.content.config_records["config"]["server-round"]))
        visit = (number - 1) * settings["cohort"] + int(context.node_config["partition-id"])
        starts = np.load(folder / "starts.npy")
        mine = np.load(folder / "rows.npy", mmap_mode="r")[starts[visit] : starts[visit + 1]]
        rows = torch.from_numpy(mine.astype(np.int64))
        given = message.content.array_records["arrays"]["flat"].numpy()
        model = NaturalModel(
            named_parameters(folder, given), settings["architecture"], settings["heads"]
        )
        sgd = torch.optim.SGD(model.parameters(), lr=settings["learning_rate"])
        for batch in rows.split(settings["batch"]):
            sgd.zero_grad()
            model.loss(batch).backward()
            sgd.step()
        records = RecordDict(
            {
                "arrays": ArrayRecord({"flat": Array(model.flat())}),
                "metrics": MetricRecord({"num-examples": len(rows)}),
            }
        )
        return Message(records, reply_to=message)

    return app


def server_app(folder: Path, settings: dict[str, Any]) -> ServerApp:
    """Return the app of the server, which waits for a line before each round."""
    app = ServerApp()
    rounds = settings["rounds"]
    began = 0.0

    def between(number: int, arrays: ArrayRecord) -> None:
        nonlocal began
        if number:
            os.write(_ANSWERS, f'{{"seconds": {time.perf_counter() - began}}}\n'.encode())
        if number == rounds:
            np.save(folder / "flower.npy", arrays["flat"].numpy(), allow_pickle=False)
            return
        sys.stdin.readline()
        began = time.perf_counter()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        cohort = settings["cohort"]
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=cohort, min_available_nodes=cohort)
        start = ArrayRecord({"flat": Array(np.load(folder / "start.npy"))})
        strategy.start(grid, start, rounds, train_config=ConfigRecord({}), evaluate_fn=between)

    return app


def main(folder: Path) -> None:
    """Train the task in a folder."""
    os.dup2(2, 1)
    settings = json.loads((folder / "settings.json").read_text())
    run_simulation(
        server_app(folder, settings),
        client_app(folder),
        num_supernodes=settings["cohort"],
        backend_config={
            "init_args": {"num_cpus": 1},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
