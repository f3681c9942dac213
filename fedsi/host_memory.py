"""The machine's memory: its size, and detection of errors from lack of it."""

import math
import os
import re
from pathlib import Path

from fedsi.errors import UserError

GIB = 1 << 30

ADDRESS_SPACE, ADDRESS_SPACE_OF_CORE = int(1.2 * GIB), 80 << 20
"""Bytes of address space that a small run was measured to need, and more for each core: a buffer
of OpenBLAS, which is loaded twice, and stacks."""
MOST_THREADS = 64
"""Largest number of threads for which OpenBLAS is built."""

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with a container's memory limit: cgroups v2 and v1."""

_NOT_ENOUGH = re.compile(
    "can't allocate memory|not enough memory|bad_alloc|can't start new thread", re.IGNORECASE
)
"""Messages about lack of memory in PyTorch's and the C++ library's errors of other types."""


def machine_memory() -> int:
    """Return the bytes of memory of this machine, or of this container if it has a limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _LIMITS:
        try:
            limits.append(int(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    return min(limits)


def check_memory(needed: float, what: str, advice: str) -> None:
    """Refuse a need that exceeds the machine's memory.

    Args:
        needed: Lower bound of the bytes needed.
        what: The object or process that needs them.
        advice: Advice at the end of the error.

    Raises:
        UserError: The machine has less memory.
    """
    has = machine_memory()
    if needed > has:
        raise UserError(
            f"{what} needs at least {needed / GIB:,.1f} GiB of memory and this machine has "
            f"{has / GIB:,.1f}; {advice}"
        )


def check_address_space() -> None:
    """Refuse a limit of this process's address space within which it could not start.

    OpenBLAS, which NumPy and SciPy load, allocates a buffer for each thread. If it gets none it
    tries again without end, and no signal but SIGKILL ends the process.

    Raises:
        UserError: The limit is too low.
    """
    try:
        import resource  # noqa: PLC0415 - only Unix has it
    except ImportError:
        return

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    needed = ADDRESS_SPACE + min(cores, MOST_THREADS) * ADDRESS_SPACE_OF_CORE
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise UserError(
            f"this process may use {limit / GIB:.2f} GiB of address space, and fedsi needs at "
            f"least {needed / GIB:.2f} GiB on {cores} cores before it trains anything; raise the "
            f"limit: ulimit -v {math.ceil(needed / 1024)}, or ulimit -v unlimited"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is due to lack of memory, or of room for another thread."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _NOT_ENOUGH.search(str(error)) is not None
    )
