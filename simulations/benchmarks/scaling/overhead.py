"""Cost of a round apart from its training steps.

Measured in a separate process, started as ``python -m simulations.benchmarks.scaling.overhead
EXPERIMENT.toml POPULATION``, with one worker in the server's process, one thread, in CPU seconds.
"""

import json
import sys
import time
from pathlib import Path

from fedsi.data.population import WHOLE
from fedsi.data.prepare import open_population
from fedsi.experiment import Experiment
from fedsi.learning.block import BlockTrainer
from fedsi.learning.first_steps import FirstSteps
from fedsi.learning.step_by_hand import FusedSgd
from server.nodes import Hosting
from server.rounds import initial_server_state, run_rounds
from simulations.benchmarks.own_process import measured_by
from simulations.benchmarks.scaling.finding import Finding
from simulations.benchmarks.stopwatch import timed
from simulations.engines.in_process import InProcessGrid
from simulations.engines.nodes_grid import FIRST_NODE


def measure_overhead(experiment: Experiment, population: Path, folder: Path) -> list[Finding]:
    """Measure one round of an experiment after a warm-up round.

    The round's time is split into three parts. *Steps*: ``FusedSgd.step`` and
    ``FirstSteps.gradients``. *Passes over each client's parameters*: everything else done once per
    client on the node, which is copying the global parameters, adding the update to the exact sum,
    and reading and shuffling the texts. It grows with clients times parameters and is limited by
    memory. *The rest*: drawing the cohort, the messages, the average and the server optimizer. The
    target applies to the rest: even with infinitely fast steps, the passes and the rest would
    remain.

    Args:
        experiment: Its cohort is the round's.
        population: Its folder.
        folder: Folder for temporary files.

    Raises:
        BenchmarkError: The measuring process failed.
    """
    file = folder / "experiment.toml"
    file.write_text(experiment.to_toml(), encoding="utf-8")
    found = measured_by("simulations.benchmarks.scaling.overhead", file, population)
    name = f"round of {experiment.server.cohort_size} clients x {found['parameters']:,} parameters"
    passes = found["block"] - found["steps"]
    return [
        Finding(f"{name}: training steps", found["steps"], "s"),
        Finding(f"{name}: passes over each client's parameters", passes, "s"),
        Finding(f"{name}: the rest", found["round"] - found["block"], "s", "< 0.5"),
    ]


def time_overhead(experiment: Experiment, population: Path) -> dict[str, float]:
    """Measure in this process; return the number of parameters and the seconds."""
    description = open_population(population).description
    warm = experiment.updated({"server.rounds": 1, "server.cohort_size": 2})
    measured = experiment.updated({"server.rounds": 2, "server.evaluate_every": 2})
    with InProcessGrid(population, 1) as grid:
        state = initial_server_state(warm, description)
        list(
            run_rounds(
                grid,
                lambda: Hosting({FIRST_NODE: WHOLE}),
                warm,
                description,
                None,
                state,
                seed=warm.seed,
            )
        )
        rounds = run_rounds(
            grid,
            lambda: Hosting({FIRST_NODE: WHOLE}),
            measured,
            description,
            None,
            state,
            seed=measured.seed,
        )
        with (
            timed(FusedSgd, "step") as steps,
            timed(FirstSteps, "gradients") as first_steps,
            timed(BlockTrainer, "train") as block,
        ):
            # The first of two rounds, because it ends without an evaluation.
            began = time.process_time()
            next(rounds)
            seconds = time.process_time() - began
    return {
        "parameters": len(state.parameters),
        "round": seconds,
        "block": block.seconds,
        "steps": steps.seconds + first_steps.seconds,
    }


if __name__ == "__main__":
    found = time_overhead(Experiment.from_file(Path(sys.argv[1])), Path(sys.argv[2]))
    sys.stdout.write(json.dumps(found))
