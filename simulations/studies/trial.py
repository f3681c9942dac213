"""The process of one trial: trains the experiment, and evaluates its model client by client.

Forked by ``simulations.studies.fork_server``. A line of JSON on standard input has the experiment's
TOML, and sequence lengths to evaluate at. Standard input stays open; when it closes, the study's
process has ended, and this one stops too. Results are in the folder; errors are one line on
standard error.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from fedsi.errors import UnfinishedError, UserError
from fedsi.experiment import Experiment
from server.runs.lock import held
from simulations.engines.alarm import own_process
from simulations.simulation import simulate
from simulations.studies.measured import measure

GRACE_SECONDS = 10.0
"""Time that a process has to write a checkpoint when it is stopped."""


def main(folder: str, cache: str, mode: str) -> int:
    """Run the experiment and return the exit code.

    Args:
        folder: The run's folder.
        cache: Folder for corpora and populations.
        mode: ``new`` or ``resume``.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asked = json.loads(sys.stdin.readline())
        experiment = Experiment.from_toml(asked["experiment"])
        threading.Thread(target=_end_with_the_study, daemon=True).start()
        resume = mode == "resume"
        # The process of a killed study may still be writing its checkpoint here.
        with held(Path(folder), wait=2 * GRACE_SECONDS), own_process():
            result = simulate(
                experiment, out=Path(folder), cache=Path(cache), resume=resume, overwrite=not resume
            )
            if not result.summary.diverged:
                measure(Path(folder), Path(cache), asked["lengths"])
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (UnfinishedError, KeyboardInterrupt) as error:
        sys.stderr.write(f"{error or 'interrupted'}\n")
        return 1
    return 0


def _end_with_the_study() -> None:
    """Wait until the study's process has ended, and then stop as if it had requested it."""
    # Not sys.stdin, because Python could not exit while this thread reads from it.
    while os.read(0, 1):
        pass
    # Sent to the main thread, so that it also wakes from a wait.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)
