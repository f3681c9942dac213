"""The table of algorithms. Each is a module that ends with its ``ALGORITHM``."""

from typing import TYPE_CHECKING

from fedsi.tables import Table

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from fedsi.learning.algorithms.algorithm import Algorithm

ALGORITHMS: "Table[Algorithm]" = Table(
    "algorithm.name",
    "fedsi.learning.algorithms.algorithm:Algorithm",
    "ALGORITHM",
    {
        "fed_avg": "fedsi.learning.algorithms.fed_avg",
        "fed_prox": "fedsi.learning.algorithms.fed_prox",
        "scaffold": "fedsi.learning.algorithms.scaffold",
    },
)


def algorithm(name: str) -> "Algorithm":
    """Return the entry of a name."""
    return ALGORITHMS[name]


def algorithm_of(experiment: "Experiment") -> "Algorithm":
    """Return the algorithm of an experiment."""
    return algorithm(experiment.algorithm.name)


def check_privacy(experiment: "Experiment", entry: "Algorithm") -> None:
    """Refuse noise on updates for an algorithm that also returns vectors without noise.

    Raises:
        ValueError: The algorithm returns such vectors; names the algorithms that do not.
    """
    mechanism = experiment.privacy.mechanism
    if mechanism != "none" and entry.returned:
        private = [name for name in ALGORITHMS if not ALGORITHMS[name].returned]
        raise ValueError(
            f"privacy.mechanism={mechanism} puts noise on updates, and clients of algorithm.name="
            f"{experiment.algorithm.name} also return {' and '.join(entry.returned)}, which no "
            f"epsilon covers; use algorithm.name={' or '.join(private)}, or privacy.mechanism=none"
        )
