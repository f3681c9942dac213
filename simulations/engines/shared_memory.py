"""Memory that two processes share: a file without a name, which one creates and the other inherits.

The system frees it when both have ended, however they ended. It is written and read like any file:
a write that finds no memory is an error, where a store into a mapping would end the process.
"""

import os
import tempfile
from collections.abc import Sequence

_ADVICE = "use fewer --workers or a smaller model, or end other programs"


class SharedMemoryError(OSError):
    """There is not enough memory to share."""


def share_memory() -> int:
    """Return the file descriptor of new shared memory; where the system has none, of a file."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fedsi")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def write(memory: int, pieces: Sequence[bytes]) -> None:
    """Write pieces one after the other, from the start.

    Raises:
        SharedMemoryError: They do not fit.
    """
    size = sum(map(len, pieces))
    place = 0
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                written = os.pwrite(memory, rest, place)
                place, rest = place + written, rest[written:]
    except OSError as error:
        raise SharedMemoryError(
            f"{size / 1e6:,.1f} MB of a message between the server and a worker do not fit into "
            f"shared memory ({os.strerror(error.errno or 0)}); {_ADVICE}"
        ) from error


def read(memory: int, sizes: Sequence[int]) -> list[bytes]:
    """Return the pieces that ``write`` wrote.

    Raises:
        EOFError: The memory ends before they do.
    """
    place, pieces = 0, []
    for size in sizes:
        piece = os.pread(memory, size, place)
        while len(piece) < size:  # the system limits a single read
            more = os.pread(memory, size - len(piece), place + len(piece))
            if not more:
                raise EOFError
            piece += more
        pieces.append(piece)
        place += size
    return pieces
