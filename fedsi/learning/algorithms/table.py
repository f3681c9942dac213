"""The table of algorithms. Each is a module that ends with its ``ALGORITHM``."""

from typing import TYPE_CHECKING

from fedsi.tables import Table

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from fedsi.learning.algorithms.algorithm import Algorithm

KEYS = frozenset({"mu", "state_limit"})
"""The keys ``algorithm.*`` that only some algorithms use."""

ALGORITHMS: "Table[Algorithm]" = Table(
    "algorithm.name",
    "fedsi.learning.algorithms.algorithm:Algorithm",
    "ALGORITHM",
    {
        "fed_avg": "fedsi.learning.algorithms.fed_avg",
        "fed_prox": "fedsi.learning.algorithms.fed_prox",
        "scaffold": "fedsi.learning.algorithms.scaffold",
        "central": "fedsi.learning.algorithms.central",
    },
    own="an Algorithm of yours",
)


def algorithm_keys(name: str) -> frozenset[str]:
    """Return the keys ``algorithm.*`` that an algorithm may use, apart from ``name``.

    All keys for a custom algorithm, which is not imported here.
    """
    return KEYS if ALGORITHMS.is_own(name) else ALGORITHMS[name].keys


def algorithm_of(experiment: "Experiment") -> "Algorithm":
    """Return the algorithm of an experiment.

    Raises:
        UserError: The custom algorithm cannot be used.
    """
    if ALGORITHMS.is_own(experiment.algorithm.name):
        from fedsi.learning.algorithms.user_algorithm import checked_algorithm  # noqa: PLC0415 - only for these

        return checked_algorithm(experiment)
    return ALGORITHMS[experiment.algorithm.name]


def check_algorithm(experiment: "Experiment") -> None:
    """Refuse an experiment that does not fit its algorithm; custom algorithms are checked later.

    Raises:
        ValueError: It does not fit; says why.
    """
    if not ALGORITHMS.is_own(experiment.algorithm.name):
        entry = ALGORITHMS[experiment.algorithm.name]
        entry.check(experiment)
        check_privacy(experiment, entry)


def check_privacy(experiment: "Experiment", entry: "Algorithm") -> None:
    """Refuse noise if vectors are returned without any, and masks if there are no updates.

    Raises:
        ValueError: The algorithm returns such vectors or no updates; names the others.
    """
    if experiment.privacy.secure_aggregation and entry.pools:
        raise ValueError(
            f"privacy.secure_aggregation masks clients' updates, and algorithm.name="
            f"{experiment.algorithm.name} pools their examples instead; set "
            "privacy.secure_aggregation=false"
        )
    mechanism = experiment.privacy.mechanism
    if mechanism != "none" and entry.returned:
        entries = {name: ALGORITHMS[name] for name in ALGORITHMS}
        private = [name for name, one in entries.items() if not (one.returned or one.pools)]
        raise ValueError(
            f"privacy.mechanism={mechanism} puts noise on updates, and clients of algorithm.name="
            f"{experiment.algorithm.name} also return {' and '.join(entry.returned)}, which no "
            f"epsilon covers; use algorithm.name={' or '.join(private)}, or privacy.mechanism=none"
        )
