"""The peer process of fedsi: trains the task in a folder with fedsi's engine and round loop.

Started by ``fedsi_command``. It replies like ``pfl_peer``, and adds its node's peak memory before
and after the round.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedsi.data.prepare import open_population
from fedsi.experiment import Experiment
from server.nodes import Hosts
from server.rounds import ServerState, initial_server_state, run_rounds
from simulations.benchmarks.machine import peak_memory
from simulations.engines.in_process import InProcessGrid

FEDSI = "fedsi"
NUDGED = "nudged"
"""The same training from weights that differ by the rounding error of a product."""

NUDGE = 1e-6
"""Standard deviation of the relative change of each weight; float32 has 24 bits, 6e-8, and a sum of
a few hundred products loses some ten times that."""


def main(folder: Path, name: str) -> None:
    """Train the task in a folder as one of ``FEDSI`` and ``NUDGED``."""
    settings = json.loads((folder / "settings.json").read_text())
    experiment = Experiment.from_toml(settings["experiment"])
    population = Path(settings["population"])
    description = open_population(population).description
    state: ServerState = initial_server_state(experiment, description)
    nudge = np.zeros(len(state.parameters))
    if name == NUDGED:
        nudge = state.parameters * np.random.default_rng(0).normal(0, NUDGE, len(nudge))
        state = replace(state, parameters=(state.parameters + nudge).astype(np.float32))
    with InProcessGrid(population, settings["workers"]) as grid:
        hosts = Hosts(grid, experiment)
        rounds = run_rounds(
            grid, hosts.connected, experiment, description, None, state, seed=experiment.seed
        )
        for _ in sys.stdin:
            before = _node_memory(grid)
            state, record = next(rounds)
            _say(seconds=record.train_seconds, before=before, peak=_node_memory(grid))
    final = (state.parameters - nudge).astype(np.float32)
    np.save(folder / f"{name}.npy", final, allow_pickle=False)


def _node_memory(grid: InProcessGrid) -> int:
    return max(map(peak_memory, grid.processes()))


def _say(**values: object) -> None:
    os.write(1, (json.dumps(values) + "\n").encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
