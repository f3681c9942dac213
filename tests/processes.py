"""Processes that tests look at."""

from pathlib import Path

from tests.nursery import NURSERIES


def children_of(parent: int) -> list[int]:
    """Return the ids of the processes that a process started, but for the tests' own."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has already ended
            continue
        process = int(status.parent.name)
        if int(fields[1]) == parent and process not in NURSERIES:
            found.append(process)
    return found
