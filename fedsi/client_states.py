"""Client states: vectors that clients keep between rounds, in a file for each client and round.

A node writes a client's state under the client and the round, and never overwrites an older one.
The server decides which file is a client's state: its checkpoint records the round in which each
client was last aggregated. So a state becomes valid when the round's checkpoint is written. Files
of rounds that a killed run did not finish, and of lost clients, are never read. The server removes
them, and states that newer ones have replaced.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsi.errors import DamagedError, UserError
from fedsi.files import OWNER, make_folder, write_atomically
from fedsi.hashed_arrays import from_bytes, to_bytes

Rounds = NDArray[np.int32]
"""The round in which each training client's state was written, 0 for none: ``[clients]``."""

_ENDING = ".safetensors"


class ClientStates:
    """The folder of the clients' states, shared by all processes on the machine.

    Args:
        folder: The folder, which must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, client: int, round_number: int) -> Path:
        """Return the file of a client's state after a round."""
        return self.folder / f"{client}-{round_number}{_ENDING}"

    def write(
        self, client: int, round_number: int, vectors: dict[str, NDArray[np.float32]]
    ) -> None:
        """Write a client's state after a round.

        Raises:
            UserError: The disk is full, or the folder cannot be written.
        """
        content = to_bytes(vectors, _identity(client, round_number))
        write_atomically(self.path(client, round_number), content, OWNER)

    def read(
        self, client: int, round_number: int, names: Sequence[str], size: int
    ) -> dict[str, NDArray[np.float32]]:
        """Return a client's vectors, ``[size]`` each.

        Args:
            client: The client's index in the population.
            round_number: The round in which they were written; 0 for a client that has none yet,
                whose vectors are zeros.
            names: Names of the vectors.
            size: Their length.

        Raises:
            DamagedError: The file is missing or damaged.
        """
        if not round_number:
            return {name: np.zeros(size, np.float32) for name in names}
        path = self.path(client, round_number)
        try:
            vectors, meta = from_bytes(path.read_bytes())
            if meta != _identity(client, round_number):
                raise ValueError("it belongs to another client or another round")
            if {name: len(vector) for name, vector in vectors.items()} != dict.fromkeys(
                names, size
            ):
                raise ValueError("it has other vectors than the algorithm's")
        except (OSError, ValueError) as error:
            reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else error
            raise DamagedError(
                f"the state {path} of client {client} is damaged or missing ({reason}); put back "
                "the file that the run wrote, or start again with --overwrite"
            ) from None
        return vectors

    def begin(self, rounds: Rounds | None) -> None:
        """Create the folder, and remove everything in it except the states of these rounds.

        Raises:
            UserError: The folder cannot be written.
        """
        make_folder(self.folder)
        self.folder.chmod(OWNER | 0o100)
        self._sweep(rounds)

    def sync(self, rounds: Rounds | None, round_number: int) -> None:
        """Flush the states of a round to disk.

        Raises:
            UserError: A state is missing, as after training on a machine that does not share the
                folder.
        """
        for client in np.flatnonzero(_given(rounds) == round_number).tolist():
            path = self.path(client, round_number)
            try:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                raise UserError(
                    f"the state of client {client} is not at {path} ({reason}), where its node "
                    "wrote it; nodes on several machines need a folder that they share"
                ) from None

    def replace(self, before: Rounds | None, after: Rounds | None, *, lost: bool) -> None:
        """Remove the states replaced in a round, after its checkpoint was written.

        Args:
            before: The rounds of the states before the round.
            after: The rounds of the states after it.
            lost: Whether clients were lost, whose states may have been written anyway.
        """
        if lost:
            self._sweep(after)
            return
        old = _given(before)
        for client in np.flatnonzero((old != _given(after)) & (old > 0)).tolist():
            self.path(client, int(old[client])).unlink(missing_ok=True)

    def _sweep(self, rounds: Rounds | None) -> None:
        """Remove every file that is not a current state."""
        for entry in os.scandir(self.folder):
            client, _, number = entry.name.removesuffix(_ENDING).partition("-")
            current = False
            with suppress(ValueError, IndexError):
                current = int(number) == _given(rounds)[int(client)] > 0
            if not current:
                Path(entry.path).unlink(missing_ok=True)


def _given(rounds: Rounds | None) -> Rounds:
    return np.zeros(0, np.int32) if rounds is None else rounds


def _identity(client: int, round_number: int) -> dict[str, str]:
    return {"client": str(client), "round": str(round_number)}
