"""Facts about the process and the machine of a measurement."""

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
    """Return the peak resident memory of a process in bytes.

    The kernel's high-water mark is preferred: ``ru_maxrss`` also counts the process before it
    started its program, and is only available for this process.

    Args:
        process: Its id; None for this process.

    Raises:
        BenchmarkError: It is another process, and the system does not provide the number.
    """
    try:
        status = Path(f"/proc/{process or 'self'}/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    if process is not None:
        raise BenchmarkError("this needs /proc, where Linux reports the memory of a process")
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
