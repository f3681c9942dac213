"""The choice of held-out clients, which are excluded from training and from the vocabulary."""

import hashlib
from collections import Counter
from collections.abc import Mapping


def hash_order(name: str) -> bytes:
    """Return a key that sorts names in a fixed pseudorandom order."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def heldout_groups(group_of: Mapping[str, str], fraction: float) -> set[str]:
    """Choose whole groups of clients until about a given share of all clients is held out.

    Groups are visited in hash order and taken while the share is not exceeded; a group too large to
    fit is skipped. At least one group is held out and at least one is not.

    Args:
        group_of: The group of each client.
        fraction: Share of the clients to hold out, between 0 and 1.

    Returns:
        The groups held out; empty if there is only one group.
    """
    sizes = Counter(group_of.values())
    if len(sizes) < 2:
        return set()
    wanted = fraction * len(group_of)
    chosen: set[str] = set()
    held = 0
    for group in sorted(sizes, key=hash_order):
        if held + sizes[group] <= wanted:
            chosen.add(group)
            held += sizes[group]
    return chosen or {min(sizes, key=lambda group: (sizes[group], hash_order(group)))}


def is_heldout_sentence(client: str, text: str, fraction: float) -> bool:
    """Whether a client's sentence is held out: a pure function of both.

    A sentence that a client wrote twice is on the same side both times.
    """
    key = f"{client}\0{text}".encode("utf-8", "surrogatepass")
    draw = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    return draw < fraction * 2.0**64
