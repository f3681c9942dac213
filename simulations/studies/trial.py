"""One experiment of a study, in a process of its own.

Started by ``own_command("simulations.studies.trial", FOLDER, CACHE, "new" or "resume")`` with the
experiment's TOML as a line of JSON on standard input, which stays open: when it closes, the study's
process has ended, and this one stops too. What it finds lies in the folder; errors are one line on
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

GRACE_SECONDS = 10.0
"""How long a process may take to leave a checkpoint when it is told to stop."""


def main(folder: str, cache: str, mode: str) -> int:
    """Run the experiment and return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        experiment = Experiment.from_toml(json.loads(sys.stdin.readline()))
        threading.Thread(target=_end_with_the_study, daemon=True).start()
        resume = mode == "resume"
        # The process of a study that was killed may still be leaving its checkpoint here.
        with held(Path(folder), wait=2 * GRACE_SECONDS), own_process():
            simulate(
                experiment, out=Path(folder), cache=Path(cache), resume=resume, overwrite=not resume
            )
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (UnfinishedError, KeyboardInterrupt) as error:
        sys.stderr.write(f"{error or 'interrupted'}\n")
        return 1
    return 0


def _end_with_the_study() -> None:
    """Wait until the study's process has ended, and then stop as if it had said so."""
    # Not sys.stdin: Python could not end while this thread reads from it.
    while os.read(0, 1):
        pass
    # To the main thread, so that it also wakes from a wait.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
