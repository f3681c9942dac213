"""The process that a study's trials are forked from, with all libraries loaded.

Loading them takes longer than many a trial. A forked trial has them at once, and is nevertheless a
process of its own: it can be killed, its memory is returned when it ends, and what its code changes
is changed for it alone. A process can only be forked safely while it has one thread, so this one
computes nothing before it forks.

Started by ``own_command("simulations.studies.fork_server", DESCRIPTOR)`` with a socket. A request
is JSON, the arguments of ``simulations.studies.trial.main``, with two descriptors: the trial's
standard input and its standard error. Answers are lines ``started PID``, and later ``ended PID
CODE`` with a negative code for a signal. The process ends when the socket closes.
"""

import gc
import io
import json
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import Any

import numba
from matplotlib.backends import backend_agg, backend_svg
from matplotlib.figure import Figure

from simulations.engines import in_process
from simulations.reports import figures
from simulations.studies import trial

POLL_SECONDS = 0.1
REQUEST_BYTES = 1 << 16

USED_LATER = (in_process, figures, backend_agg, backend_svg)
"""Modules that a trial would otherwise import itself."""


def main(descriptor: str) -> None:
    """Serve requests until the socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study stops its trials
    _load_what_loads_late()
    gc.collect()
    gc.freeze()  # so that collections in the trials do not copy the pages of all these objects
    _serve(socket.socket(fileno=int(descriptor)))


def _load_what_loads_late() -> None:
    """Have the compiler and the drawing library load what they load at their first use."""
    compiler: Any = numba.njit
    compiler(lambda: 0)()
    figure = Figure()
    figure.subplots().set_title("a")
    for kind in ("png", "svg"):
        figure.savefig(io.BytesIO(), format=kind)


def _serve(channel: socket.socket) -> None:
    running: set[int] = set()
    while True:
        ready, _, _ = select.select([channel], [], [], POLL_SECONDS if running else None)
        if ready:
            request, descriptors, _, _ = socket.recv_fds(channel, REQUEST_BYTES, 2)
            if not request:
                return
            running.add(_forked(channel, json.loads(request), *descriptors))
        for process in tuple(running):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                running.remove(process)
                _tell(channel, f"ended {process} {os.waitstatus_to_exitcode(status)}")


def _forked(channel: socket.socket, arguments: list[str], stdin: int, stderr: int) -> int:
    """Fork a trial; returns its process id, here only."""
    process = os.fork()
    if process == 0:
        channel.close()
        os._exit(_run(arguments, stdin, stderr))
    os.close(stdin)
    os.close(stderr)
    _tell(channel, f"started {process}")
    return process


def _run(arguments: list[str], stdin: int, stderr: int) -> int:
    """Run a trial in this forked process; returns its exit code."""
    try:
        os.setsid()
        for number, descriptor in ((0, stdin), (2, stderr)):
            os.dup2(descriptor, number)
            os.close(descriptor)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return trial.main(*arguments)
    except BaseException:  # as the interpreter would at its end
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _tell(channel: socket.socket, line: str) -> None:
    with suppress(BrokenPipeError):  # the study has ended, and the next request will be its end
        channel.sendall(f"{line}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
