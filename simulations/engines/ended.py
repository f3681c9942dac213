"""The reason for the end of a process: its exit code, and whether memory was short.

The kernel kills a process with SIGKILL when memory runs out, and tells nobody else. It counts such
kills in the memory events of the control group and in ``/proc/vmstat``.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_SHORT = 5.0
"""Share of the last minute, in %, that all processes waited for memory, from which it is short."""


def counter_files() -> Iterator[Path]:
    """Yield the files with the kernel's counts of kills for lack of memory, of either version."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield _GROUPS / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            yield _GROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
    yield Path("/proc/vmstat")


def pressure_file() -> Path:
    """Return the file with the shares of time that processes waited for memory."""
    return Path("/proc/pressure/memory")


def oom_kills() -> int:
    """Return a count that grows whenever the kernel kills a process for lack of memory."""
    return sum(int(words[1]) for file in set(counter_files()) for words in _lines(file)
               if words[0] == "oom_kill")  # fmt: skip


def reason_of_end(code: int | None, kills_before: int, advice: str) -> str:
    """Return how a process ended, and after SIGKILL whether lack of memory is the likely reason.

    Args:
        code: Its exit code, negative for a signal.
        kills_before: ``oom_kills`` when it was started.
        advice: What to do if memory is short.
    """
    names = {-number.value: number.name for number in signal.Signals}
    if code not in names:
        return f"ended with code {code}"
    ended = f"ended with code {code} ({names[code]})"
    if code != -signal.SIGKILL:
        return ended
    why = "the kernel has killed a process for lack of memory meanwhile"
    if oom_kills() <= kills_before:
        waited = _waited_for_memory()
        if waited < _SHORT:
            return f"{ended}: it was killed, and nothing shows that memory was short"
        why = f"memory is short, and all processes waited for it {waited:.0f} % of the last minute"
    return f"{ended}: it was killed, and the likeliest reason is that {why}; {advice}"


def _waited_for_memory() -> float:
    """Return the share of the last minute, in %, that all processes waited for memory."""
    for words in _lines(pressure_file()):
        if words[0] == "full":
            return float(dict(word.split("=") for word in words[1:])["avg60"])
    return 0.0


def _lines(file: Path) -> list[list[str]]:
    """Return the words of each line of a file; nothing if it cannot be read."""
    try:
        return [line.split() for line in file.read_text().splitlines() if line.strip()]
    except OSError:
        return []
