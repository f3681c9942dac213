"""Python processes forked from one that has loaded the libraries, in place of freshly started ones.

A fresh process of fedsi needs three seconds of a processor for its imports, and the suite starts
hundreds. While ``Nursery`` is open, ``subprocess`` forks the commands that ``_parsed`` knows from
this file's process instead. They remain children of the process that asked for them, with their own
memory, descriptors, environment, working folder and signals. Only their imports are already done,
so tests of imports, of loading or of the command line itself use the fixture ``fresh_processes``.
"""

import ctypes
import fcntl
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

REPOSITORY = Path(__file__).parents[1]
COMMAND = "simulations.cli.main"
OWN = ("simulations.engines.worker", "simulations.studies.fork_server")
NURSERIES: set[int] = set()
"""Ids of the processes that others are forked from."""
POPEN = subprocess.Popen
"""The usual way to start a process."""
_LAUNCH = str(REPOSITORY / "simulations" / "engines" / "launch.py")
_BECOME_PARENT_OF_ORPHANS = 36
"""PR_SET_CHILD_SUBREAPER of ``prctl``."""
_ABOVE = 200
"""Number above those of all descriptors that a process inherits."""


class Nursery:
    """The process that others are forked from; it ends when this object is closed or lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        NURSERIES.add(self._process.pid)

    def fork(self, asked: dict[str, Any], descriptors: Sequence[int]) -> int:
        """Fork a process that becomes a child of this one; return its id."""
        with self._lock:
            _adopt_orphans(yes=True)
            try:
                socket.send_fds(self._channel, [json.dumps(asked).encode()], descriptors)
                return int(self._channel.recv(64))
            finally:
                _adopt_orphans(yes=False)

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.wait(60)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within this context ``subprocess`` forks from it."""
        with patch.object(subprocess, "Popen", type("Popen", (_Popen,), {"nursery": self})):
            yield


class _Popen(POPEN):  # type: ignore[type-arg]
    """Forks from a nursery where it can."""

    nursery: Nursery

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *rest: Any) -> None:
        (close_fds, pass_fds, cwd, env, _, _, shell, reader, _, _, writer, _, errors, *more) = rest
        parsed = _parsed(args)
        if preexec_fn or shell or executable or not close_fds or parsed is None:
            super()._execute_child(args, executable, preexec_fn, *rest)  # type: ignore[misc]
            return
        streams = [number if there < 0 else there
                   for number, there in enumerate((reader, writer, errors))]  # fmt: skip
        asked = {
            "parsed": parsed,
            "numbers": [0, 1, 2, *pass_fds],
            "folder": os.fspath(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "session": more[-2],
        }
        self.pid = self.nursery.fork(asked, [*streams, *pass_fds])
        self._child_created = True
        self._close_pipe_fds(*rest[7:13])  # type: ignore[attr-defined]


def _parsed(command: Any) -> list[str] | None:
    """Return what a command runs, ``-m MODULE ARGUMENT...`` or ``-c CODE ARGUMENT...``, if known.

    The first word is ``-P`` for one of fedsi's own processes, which ends its import path with the
    working folder.
    """
    if isinstance(command, str) or command[0] != sys.executable:
        return None
    words = [os.fspath(word) for word in command[1:]]
    if words[:2] == ["-P", _LAUNCH] and words[2] in OWN:
        return ["-P", *words[2:]]
    if words[0] == "-c" or words[:2] == ["-m", COMMAND]:
        return words
    return None


def _adopt_orphans(*, yes: bool) -> None:
    if ctypes.CDLL(None).prctl(_BECOME_PARENT_OF_ORPHANS, int(yes), 0, 0, 0):
        raise OSError("prctl")


def _main(descriptor: int) -> None:
    channel = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    own = os.environ["PYTHONPATH"].split(os.pathsep)
    for name in (COMMAND, *OWN):
        importlib.import_module(name)
    importlib.import_module("simulations.studies.fork_server")._load_what_loads_late()
    importlib.import_module("tests.forced_products").force_as_asked()
    sys.path[:] = [path for path in sys.path if path not in own]
    gc.collect()
    gc.freeze()
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 64)
        if not request:
            return
        channel.send(_fork(json.loads(request), descriptors))


def _fork(asked: dict[str, Any], descriptors: list[int]) -> bytes:
    """Fork a process whose parent has ended, so that whoever adopts orphans is its parent."""
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        parent = os.getpid()
        process = os.fork()
        if process:
            os.write(writer, str(process).encode())
            os._exit(0)
        while os.getppid() == parent:
            time.sleep(0.001)
        os._exit(_become(asked, descriptors))
    os.waitpid(between, 0)
    written = os.read(reader, 64)
    for number in (reader, writer, *descriptors):
        os.close(number)
    return written


def _become(asked: dict[str, Any], descriptors: list[int]) -> int:
    """Run what was asked in this forked process; returns its exit code."""
    try:
        _set_up(asked, descriptors)
        _run(*asked["parsed"])
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException as error:
        traceback.print_exc()
        return -signal.SIGINT % 256 if isinstance(error, KeyboardInterrupt) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _set_up(asked: dict[str, Any], descriptors: list[int]) -> None:
    above = [fcntl.fcntl(number, fcntl.F_DUPFD, _ABOVE) for number in descriptors]
    os.closerange(3, _ABOVE)
    for number, there in zip(asked["numbers"], above, strict=True):
        os.dup2(there, number)
        os.close(there)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    if asked["session"]:
        os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in paths if path]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(how: str, what: str, *arguments: str) -> None:
    sys.argv = [what if how == "-P" else how, *arguments]
    if how == "-P":
        sys.path.append(str(Path.cwd()))
        importlib.import_module(what).main(*arguments)
        return
    sys.path.insert(0, "")
    if how == "-m":
        sys.exit(importlib.import_module(what).main())
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    exec(compile(what, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
