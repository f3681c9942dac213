"""Where a node is: the client it is at, in memory that another process may look into."""

from typing import Any

import numpy as np

NOBODY = -1


class Position:
    """The client that this process is at; moving costs no more than writing a number."""

    def __init__(self) -> None:
        self._cell = np.full(1, NOBODY, np.int64)

    def publish_in(self, memory: Any) -> None:
        """Keep it in the first 8 bytes of some memory from now on."""
        self._cell = np.frombuffer(memory, np.int64, count=1)
        self.leave()

    def move(self, client: int) -> None:
        """Be at a client."""
        self._cell[0] = client

    def leave(self) -> None:
        """Be at none."""
        self._cell[0] = NOBODY

    @property
    def client(self) -> int | None:
        """The client, None at none."""
        client = int(self._cell[0])
        return None if client == NOBODY else client


position = Position()
"""Of this process."""
