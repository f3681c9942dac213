"""The machine's memory: how much there is, and how errors say that it was not enough."""

import os
import re
from pathlib import Path

from fedsi.errors import UserError

GIB = 1 << 30

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files in which a container finds its limit: of cgroups v2, and of v1."""

_NOT_ENOUGH = re.compile(
    "can't allocate memory|not enough memory|bad_alloc|can't start new thread", re.IGNORECASE
)
"""How PyTorch and the C++ library say so, in errors of other types."""


def machine_memory() -> int:
    """Return the bytes of memory that the machine has, or that this container may use."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _LIMITS:
        try:
            limits.append(int(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    return min(limits)


def check_memory(needed: float, what: str, advice: str) -> None:
    """Refuse what cannot fit into the machine's memory.

    Args:
        needed: Bytes, at least.
        what: What needs them.
        advice: What to do.

    Raises:
        UserError: The machine has less.
    """
    has = machine_memory()
    if needed > has:
        raise UserError(
            f"{what} needs at least {needed / GIB:,.1f} GiB of memory and this machine has "
            f"{has / GIB:,.1f}; {advice}"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, or no room for another thread."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _NOT_ENOUGH.search(str(error)) is not None
    )
