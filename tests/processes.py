"""Processes that tests look at."""

from pathlib import Path


def children_of(parent: int) -> list[int]:
    """Return the ids of the processes that a process started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has already ended
            continue
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return found
