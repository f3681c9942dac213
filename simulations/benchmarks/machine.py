"""What a measurement needs to know of the process and of the machine it runs on."""

import platform
import re
import resource
from pathlib import Path

from fedsi.errors import UnfinishedError
from fedsi.threads import available_cores
from server.runs.provenance import processor

MIB = 1 << 20


class BenchmarkError(UnfinishedError):
    """A benchmark's result would be wrong, or its process died."""


def peak_memory(process: int | None = None) -> int:
    """Return the most memory that a process has had resident, in bytes.

    The kernel's high-water mark is read where there is one: ``ru_maxrss`` counts what the process
    was before it started its program, and is known of this process only.

    Args:
        process: Its id; None for this one.

    Raises:
        BenchmarkError: It is another one, and the system does not tell.
    """
    try:
        status = Path(f"/proc/{process or 'self'}/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    if process is not None:
        raise BenchmarkError("this needs /proc, where Linux tells the memory of a process")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if platform.system() == "Darwin" else most * 1024


def machine() -> dict[str, str | int]:
    """Describe the machine."""
    return {
        "processor": processor(),
        "cores": available_cores(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
