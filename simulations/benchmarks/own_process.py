"""Measurements in a separate process, with one thread and fresh memory."""

import json
import subprocess
from typing import Any

from simulations.benchmarks.machine import BenchmarkError
from simulations.engines.processes import own_command, single_threaded_environment


def measured_by(module: str, *arguments: object) -> Any:
    """Run a module and return the JSON that it prints.

    Raises:
        BenchmarkError: It failed; the reason is on standard error.
    """
    done = subprocess.run(
        own_command(module, *arguments),
        stdout=subprocess.PIPE,
        env=single_threaded_environment(),
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"the measuring process ended with code {done.returncode}")
    return json.loads(done.stdout)
