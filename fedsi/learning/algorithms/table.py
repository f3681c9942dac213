"""The table of algorithms, each of which is a module that ends with its ``ALGORITHM``."""

from typing import TYPE_CHECKING

from fedsi.learning.algorithms.algorithm import Algorithm
from fedsi.tables import Table

if TYPE_CHECKING:
    from fedsi.experiment import Experiment

ALGORITHMS = Table(
    "algorithm.name",
    Algorithm,
    "ALGORITHM",
    {"fed_avg": "fedsi.learning.algorithms.fed_avg"},
)


def algorithm_of(experiment: "Experiment") -> Algorithm:
    """Return the algorithm of an experiment."""
    return ALGORITHMS[experiment.algorithm.name]
