"""The peer process of fedsi: trains the task in a folder with fedsi's engine and round loop.

Started by ``fedsi_command``. It replies like ``pfl_peer``, and adds its node's peak memory before
and after the round.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from fedsi.data.prepare import open_population
from fedsi.experiment import Experiment
from server.nodes import Hosts
from server.rounds import ServerState, initial_server_state, run_rounds
from simulations.benchmarks.machine import peak_memory
from simulations.engines.in_process import InProcessGrid


def main(folder: Path) -> None:
    """Train the task in a folder."""
    settings = json.loads((folder / "settings.json").read_text())
    experiment = Experiment.from_toml(settings["experiment"])
    population = Path(settings["population"])
    description = open_population(population).description
    state: ServerState = initial_server_state(experiment, description)
    with InProcessGrid(population, settings["workers"]) as grid:
        hosts = Hosts(grid, experiment)
        rounds = run_rounds(
            grid, hosts.connected, experiment, description, None, state, seed=experiment.seed
        )
        for _ in sys.stdin:
            before = _node_memory(grid)
            state, record = next(rounds)
            _say(seconds=record.train_seconds, before=before, peak=_node_memory(grid))
    np.save(folder / "fedsi.npy", state.parameters, allow_pickle=False)


def _node_memory(grid: InProcessGrid) -> int:
    return max(map(peak_memory, grid.processes()))


def _say(**values: object) -> None:
    os.write(1, (json.dumps(values) + "\n").encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
