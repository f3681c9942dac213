"""One experiment of a study, in a process of its own.

Started by ``own_command("simulations.studies.cell", FOLDER, CACHE, "new" or "resume")`` with the
experiment's TOML on standard input. What it finds lies in the folder; errors are one line on
standard error.
"""

import sys
from pathlib import Path

from fedsi.errors import UnfinishedError, UserError
from fedsi.experiment import Experiment
from simulations.simulation import simulate


def main(folder: str, cache: str, mode: str) -> int:
    """Run the experiment and return the exit code."""
    try:
        experiment = Experiment.from_toml(sys.stdin.read())
        resume = mode == "resume"
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


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
