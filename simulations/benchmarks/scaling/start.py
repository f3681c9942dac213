"""Start-up time: from starting ``fedsi run`` to its first finished round."""

import os
import statistics
import subprocess
import time
from pathlib import Path

from fedsi.data.corpus import Progress
from fedsi.experiment import Experiment
from server.runs.rounds_file import ROUNDS
from simulations.benchmarks.machine import BenchmarkError
from simulations.benchmarks.scaling.finding import Finding
from simulations.engines.processes import inherited_environment, own_command

TICKS = os.sysconf("SC_CLK_TCK")
POLL_SECONDS = 0.01
LONGEST = 120.0


def measure_start(
    experiment: Experiment, cache: Path, repeats: int, folder: Path, tell: Progress
) -> list[Finding]:
    """Start the command several times and watch its ``rounds.csv``.

    Args:
        experiment: The experiment; its corpus is in the cache.
        cache: Folder for populations.
        repeats: Number of starts; the first, with a cold disk cache, is dropped.
        folder: Folder for the runs.
        tell: Called to report progress.

    Raises:
        BenchmarkError: A run ended without a round.
    """
    file = folder / "start.toml"
    file.write_text(experiment.to_toml(), encoding="utf-8")
    walls, busy = [], []
    for k in range(repeats):
        wall, processor = _first_round(file, cache, folder / f"start {k}")
        walls.append(wall)
        busy.append(processor)
        tell("start", k + 1, repeats)
    return [
        Finding("fedsi run to its first round", statistics.median(walls[1:]), "s", "< 4"),
        Finding("CPU time until then", statistics.median(busy[1:]), "s"),
    ]


def _first_round(experiment: Path, cache: Path, out: Path) -> tuple[float, float]:
    """Return wall-clock and CPU seconds until the first round is on disk."""
    command = own_command("simulations.cli.main", "run", experiment)
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, "--cache", str(cache), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=inherited_environment(),
    ) as process:
        try:
            while not _has_round(out / ROUNDS):
                if process.poll() is not None or time.perf_counter() - began > LONGEST:
                    raise BenchmarkError("fedsi run did not finish a round")
                time.sleep(POLL_SECONDS)
            return time.perf_counter() - began, _processor_seconds(process.pid)
        finally:
            process.kill()


def _has_round(file: Path) -> bool:
    """Whether there is a complete line below the header."""
    try:
        return file.read_bytes().count(b"\n") > 1
    except FileNotFoundError:
        return False


def _processor_seconds(process: int) -> float:
    """Return the CPU seconds used by a running process."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BenchmarkError("this needs /proc, where Linux reports a process's time") from None
    fields = status.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
