"""The table of algorithms. Each is a module that ends with its ``ALGORITHM``."""

from typing import TYPE_CHECKING

from fedsi.learning.algorithms.imitation import PUBLIC_KEYS, check_imitation
from fedsi.tables import Table

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from fedsi.learning.algorithms.algorithm import Algorithm

KEYS = PUBLIC_KEYS | {"memory_limit", "mu", "state_limit", "teacher", "teacher_sha256", "trim"}
"""The keys ``algorithm.*`` that only some algorithms use."""

ALGORITHMS: "Table[Algorithm]" = Table(
    "algorithm.name",
    "fedsi.learning.algorithms.algorithm:Algorithm",
    "ALGORITHM",
    {
        "fed_avg": "fedsi.learning.algorithms.fed_avg",
        "fed_prox": "fedsi.learning.algorithms.fed_prox",
        "scaffold": "fedsi.learning.algorithms.scaffold",
        "median": "fedsi.learning.algorithms.median",
        "trimmed_mean": "fedsi.learning.algorithms.trimmed_mean",
        "central": "fedsi.learning.algorithms.central",
        "distillation": "fedsi.learning.algorithms.distillation",
        "server_distillation": "fedsi.learning.algorithms.server_distillation",
        "fed_df": "fedsi.learning.algorithms.fed_df",
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
        check_imitation(experiment, entry)
        _check_contributions(experiment, entry)


def _check_contributions(experiment: "Experiment", entry: "Algorithm") -> None:
    """Refuse repeats and faults of clients' contributions if there are none."""
    for key in ("minimum_replies", "repeats"):
        if entry.pools and getattr(experiment.server, key):
            raise ValueError(
                f"server.{key} has no effect with algorithm.name={experiment.algorithm.name}, "
                "which pools the clients' examples in one learner; leave it out"
            )
    if entry.pools and experiment.faults.shares:
        raise ValueError(
            f"faults.* has no effect with algorithm.name={experiment.algorithm.name}, which trains "
            "no client alone; leave it out"
        )


def check_privacy(experiment: "Experiment", entry: "Algorithm") -> None:
    """Refuse privacy and bounds of updates for an algorithm with which they would not hold.

    Raises:
        ValueError: The algorithm has no updates, does not sum them, or returns more than them.
    """
    name, privacy = experiment.algorithm.name, experiment.privacy
    chosen = {
        f"privacy.mechanism={privacy.mechanism}": privacy.mechanism != "none",
        "privacy.secure_aggregation": privacy.secure_aggregation,
        f"server.norm_bound={experiment.server.norm_bound}": experiment.server.norm_bound,
    }
    for setting, is_set in chosen.items():
        bounds = setting.startswith("server.")
        if is_set and entry.pools:
            raise ValueError(
                f"algorithm.name={name} pools the clients' examples, so there are no updates for "
                f"{setting}; leave one of the two out"
            )
        if is_set and entry.aggregate and not bounds:
            raise ValueError(
                f"algorithm.name={name} needs every client's update at the server, which {setting} "
                f"is there to hide; use algorithm.name={_with_sums()} or leave it out"
            )
        if is_set and entry.returned and setting != "privacy.secure_aggregation":
            what = "which it does not bound" if bounds else "which no epsilon covers"
            raise ValueError(
                f"{setting} is about updates, and clients of algorithm.name={name} also return "
                f"{' and '.join(entry.returned)}, {what}; use algorithm.name={_with_sums()}, or "
                "leave it out"
            )


def _with_sums() -> str:
    """Return the algorithms whose clients return the sum of their updates and nothing else."""
    entries = {name: ALGORITHMS[name] for name in ALGORITHMS}
    return " or ".join(
        name for name, one in entries.items() if not (one.returned or one.pools or one.aggregate)
    )
