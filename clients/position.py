"""The client that a node is working on, in memory that another process can read."""

from typing import Any

import numpy as np

NOBODY = -1


class Position:
    """The client that this process is working on. Moving costs as much as writing a number."""

    def __init__(self) -> None:
        self._cell = np.full(1, NOBODY, np.int64)

    def publish_in(self, memory: Any) -> None:
        """Store it in the first 8 bytes of some memory from now on."""
        self._cell = np.frombuffer(memory, np.int64, count=1)
        self.leave()

    def move(self, client: int) -> None:
        """Move to a client."""
        self._cell[0] = client

    def leave(self) -> None:
        """Move to no client."""
        self._cell[0] = NOBODY

    @property
    def client(self) -> int | None:
        """The client, or None."""
        client = int(self._cell[0])
        return None if client == NOBODY else client


position = Position()
"""The position of this process."""
