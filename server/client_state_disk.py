"""The clients' states of a run: their folder, limit of disk space, and reported numbers."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fedsi.client_states import ClientStates
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.learning.algorithms.table import algorithm_of

if TYPE_CHECKING:
    from server.rounds import ServerState

FOLDER = "clients"
"""Folder of the clients' states in a run's folder."""
NUMBER = 4
"""Bytes of a float32."""
GB = 10**9


@contextmanager
def client_states(experiment: Experiment, run: Path | None) -> Iterator[ClientStates | None]:
    """Yield the states of a run's clients; None for an algorithm whose clients keep nothing.

    Args:
        experiment: The configuration.
        run: The run's folder; without one the states are in a temporary folder.
    """
    if not algorithm_of(experiment).kept:
        yield None
    elif run is not None:
        yield ClientStates(run.absolute() / FOLDER)
    else:
        with tempfile.TemporaryDirectory(prefix="fedsi-clients-") as folder:
            yield ClientStates(Path(folder))


def expected_clients(experiment: Experiment, training_clients: int) -> int:
    """Return the approximate number of clients that take part at least once.

    For N clients, each in a round with probability m / N, it is ``N (1 - (1 - m/N)^rounds)``;
    passes reach new clients until all have taken part.
    """
    server, clients = experiment.server, training_clients
    if server.sampling in {"shuffled", "allocated"}:
        return min(clients, server.rounds * server.cohort_size)
    rate = min(1.0, server.cohort_size / clients)
    return round(clients * (1.0 - (1.0 - rate) ** server.rounds))


def check_size(experiment: Experiment, training_clients: int, parameters: int) -> None:
    """Refuse a run whose clients would keep more than ``algorithm.state_limit``.

    Raises:
        UserError: The limit would be exceeded; says by how much.
    """
    entry, settings = algorithm_of(experiment), experiment.algorithm
    each = NUMBER * len(entry.kept) * parameters
    clients = expected_clients(experiment, training_clients)
    # The states of a cohort exist twice until its round is finished.
    whole = each * (clients + experiment.server.cohort_size)
    if each and whole > settings.state_limit * GB:
        raise UserError(
            f"algorithm.name={settings.name} keeps {each / 1e6:,.3g} MB for each client that takes "
            f"part, about {clients:,} clients in {experiment.server.rounds:,} rounds, so "
            f"{whole / GB:,.3g} GB of disk, more than algorithm.state_limit = "
            f"{settings.state_limit:g} GB; use fewer rounds, a smaller cohort or model, or raise "
            "the limit"
        )


def clients_and_bytes(experiment: Experiment, state: "ServerState") -> tuple[int, int]:
    """Return how many clients keep vectors after a round, and the bytes of these."""
    if state.state_rounds is None:
        return 0, 0
    clients = int((state.state_rounds > 0).sum())
    vectors = len(algorithm_of(experiment).kept)
    return clients, NUMBER * vectors * len(state.parameters) * clients
