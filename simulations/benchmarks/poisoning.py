"""Poisoned updates against the mean, a norm bound, the median and the trimmed mean.

    python -m simulations.benchmarks.poisoning [--seeds 3] [--rounds 50]

A fifth of all updates is multiplied by -10 before it leaves its client; the bits of the trained
parameters decide which, so runs are reproducible. Prints a Markdown table of held-out losses with
and without the attack, and of seconds of training per round.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np

from fedsi import Experiment
from fedsi.experiment import AlgorithmSettings
from fedsi.learning.algorithms import fed_avg, median, trimmed_mean
from fedsi.learning.algorithms.algorithm import Algorithm, Broadcast, Contribution, LocalRun
from simulations import simulate

SHARE, FACTOR = 0.2, np.float32(-10)


def poisoned(entry: Algorithm) -> Algorithm:
    """Return an algorithm with attackers among its clients."""

    def attack(settings: AlgorithmSettings, given: Broadcast, local: LocalRun) -> Contribution:
        drawn = int.from_bytes(blake2b(local.trained.tobytes(), digest_size=4).digest())
        if drawn >= SHARE * 2**32:
            return entry.finish(settings, given, local)
        return Contribution(FACTOR * (local.trained - given.start))

    return replace(entry, finish=attack)


MEAN, MEDIAN, TRIMMED = (poisoned(module.ALGORITHM) for module in (fed_avg, median, trimmed_mean))
DEFENCES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mean": ("fed_avg", "MEAN", {}),
    "norm bound, clip": ("fed_avg", "MEAN", {"server.norm_bound": 0.8}),
    "norm bound, reject": (
        "fed_avg",
        "MEAN",
        {"server.norm_bound": 2.0, "server.beyond_norm_bound": "reject"},
    ),
    "median": ("median", "MEDIAN", {}),
    "trimmed mean, 0.3": ("trimmed_mean", "TRIMMED", {"algorithm.trim": 0.3}),
}
"""By name: the algorithm, the name of its attacked version here, and other keys."""


def base(rounds: int) -> Experiment:
    """Return the experiment that is attacked."""
    return Experiment(
        data={
            "corpus": "synthetic",
            "population": 300,
            "vocabulary_size": 100,
            "max_examples_per_client": 16,
        },
        model={"architecture": "cifg", "embedding_size": 16, "hidden_size": 32},
        client={"learning_rate": 3.0},
        server={
            "rounds": rounds,
            "cohort_size": 20,
            "averaging": "uniform",
            "optimizer": "sgd",
            "learning_rate": 1.0,
            "evaluate_every": rounds,
            "evaluation_clients": 30,
        },
    )


def losses(
    defence: str, rounds: int, seeds: int, *, attacked: bool
) -> Iterator[tuple[float, float]]:
    """Yield the held-out loss and the seconds of training per round, for each seed."""
    plain, own, keys = DEFENCES[defence]
    name = f"{__spec__.name}:{own}" if attacked else plain
    for seed in range(seeds):
        experiment = base(rounds).updated({"algorithm.name": name, **keys, "seed": seed})
        result = simulate(experiment)
        loss = result.summary.heldout["loss"]
        yield math.inf if loss is None else loss, float(result.rounds["train_seconds"].median())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=50)
    asked = parser.parse_args()
    sys.stdout.write(
        "| aggregation | no attack | a fifth of updates times -10 | seconds per round |\n"
        "|---|---|---|---|\n"
    )
    for defence in DEFENCES:
        cells, seconds = [], 0.0
        for attacked in (False, True):
            found = list(losses(defence, asked.rounds, asked.seeds, attacked=attacked))
            values = [loss for loss, _ in found]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.3f} ({spread:.3f})")
            seconds = seconds or min(one for _, one in found)
        sys.stdout.write(f"| {defence} | {cells[0]} | {cells[1]} | {seconds:.3f} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
