"""fedsi trains what a folder says, with its own engine and round loop.

Started as ``python -m simulations.benchmarks.peers.fedsi_peer FOLDER``; speaks as ``pfl_peer``
does.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from fedsi.data.prepare import open_population
from fedsi.experiment import Experiment
from server.rounds import State, initial_state, run_rounds
from simulations.engines.in_process import FIRST_NODE, InProcessGrid


def main(folder: Path) -> None:
    """Train what the folder says."""
    settings = json.loads((folder / "settings.json").read_text())
    experiment = Experiment.from_toml(settings["experiment"])
    population = Path(settings["population"])
    description = open_population(population).description
    state: State = initial_state(experiment, description)
    with InProcessGrid(population, 1) as grid:
        rounds = run_rounds(grid, [FIRST_NODE], experiment, description, None, state)
        for _ in sys.stdin:
            state, record = next(rounds)
            os.write(1, (json.dumps({"seconds": record.train_seconds}) + "\n").encode())
    np.save(folder / "fedsi.npy", state.parameters, allow_pickle=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
