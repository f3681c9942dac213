"""The memory of a cohort's updates, for algorithms that need each of them."""

from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.learning.algorithms.table import algorithm_of
from server.client_state_disk import GB, NUMBER


def check_update_memory(experiment: Experiment, parameters: int) -> None:
    """Refuse a run whose cohorts' updates would take more than ``algorithm.memory_limit``.

    Raises:
        UserError: The limit would be exceeded; says by how much.
    """
    settings, clients = experiment.algorithm, experiment.server.largest_cohort
    needed = NUMBER * clients * parameters
    if algorithm_of(experiment).aggregate and needed > settings.memory_limit * GB:
        raise UserError(
            f"algorithm.name={settings.name} needs every client's update at the server: "
            f"{clients:,} clients of {NUMBER * parameters / 1e6:,.3g} MB are {needed / GB:,.3g} "
            f"GB of memory, more than algorithm.memory_limit = {settings.memory_limit:g} GB; use a "
            "smaller cohort or model, or raise the limit (replies take it a second time while they "
            "arrive)"
        )
