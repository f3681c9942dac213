"""A masked round: the participants, their keys and neighbours, and the shares they hold.

In a deployment each client draws its secrets, advertises its public key, and sends encrypted shares
of its two secrets to its neighbours through the server. Here one process plays many clients, so all
secrets are a pure function of a key of the round and the client. Nothing is then stored between
messages: a client derives again what it would have kept, and a holder the shares that it would
have received.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from fedsi.sums.secure.graph import enough_neighbours, neighbours_of, threshold
from fedsi.sums.secure.masks import SECRET_BYTES, add_streams, agreed_seed, public_key
from fedsi.sums.secure.shares import polynomial, share

PRIVATE_KEY, OWN_SEED = "private key", "own seed"
"""A client's two secrets. Of one client, only one of them may ever be revealed."""


@dataclass(frozen=True, eq=False)
class MaskedRound:
    """A round whose clients mask their vectors.

    Args:
        key: Key of all secrets of the round, 32 bytes.
        participants: The clients that were asked, including those that then drop out.
        neighbours: Number of neighbours of a client; None for a safe one.
    """

    key: bytes
    participants: NDArray[np.int64]
    neighbours: int | None = None

    @cached_property
    def graph(self) -> dict[int, list[int]]:
        """The neighbours of each client."""
        places = self.participants.tolist()
        order = sorted(places, key=lambda client: self._derived("place on the circle", client))
        count = self.neighbours or enough_neighbours(len(places))
        return neighbours_of(np.array(order, np.int64), count)

    @cached_property
    def threshold(self) -> int:
        """The number of shares that give a client's secret."""
        return threshold(max(map(len, self.graph.values()), default=0))

    @cached_property
    def places(self) -> dict[int, int]:
        """The place of each client's shares."""
        return {client: place for place, client in enumerate(self.participants.tolist())}

    @cached_property
    def public_keys(self) -> dict[int, bytes]:
        """The advertised key of each client, which the server knows too."""
        return {one: public_key(self.secret(PRIVATE_KEY, one)) for one in self.graph}

    def secret(self, kind: str, client: int) -> bytes:
        """Return a secret of a client, which only the client itself knows."""
        return self._derived(kind, client)

    def add_masks(self, vector: NDArray[np.int64], client: int) -> None:
        """Mask a client's vector, in place."""
        private = self.secret(PRIVATE_KEY, client)
        pairs = [
            (agreed_seed(private, self.public_keys[other]), sign_of(client, other))
            for other in self.graph[client]
        ]
        add_streams(vector, [(self.secret(OWN_SEED, client), 1), *pairs])

    def holders(self, client: int) -> list[int]:
        """Return the clients that hold shares of a client's secrets: its neighbours and itself."""
        return [client, *self.graph[client]]

    def shares_of(self, kind: str, client: int, holders: Sequence[int]) -> list[bytes]:
        """Return the shares of a client's secret that some of its holders received."""
        seed = self.secret(f"coefficients of the {kind}", client)
        found = polynomial(self.secret(kind, client), seed, self.threshold)
        return [share(found, self.places[holder]) for holder in holders]

    def _derived(self, what: str, client: int) -> bytes:
        text = f"{what} {client}".encode()
        return blake2b(text, key=self.key, digest_size=SECRET_BYTES).digest()


def sign_of(client: int, other: int) -> int:
    """Return 1 if a client adds the mask that it shares with another, -1 if it subtracts it."""
    return 1 if client < other else -1
