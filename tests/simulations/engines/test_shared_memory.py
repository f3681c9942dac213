"""Shared memory of the grid and its workers: whole frames, dead writers, and too little of it."""

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from fedsi import Experiment, UserError
from fedsi.data.prepare import prepare
from fedsi.messages import ARRAY_FORMAT, Describe, Described, Train, Trained, array_bytes
from server.exchange import Failure, exchange
from simulations.engines.in_process import InProcessGrid
from simulations.engines.shared_memory import SharedMemoryError, read, share_memory, write
from simulations.engines.wire import Channel, Frame


@pytest.fixture
def memory() -> Iterator[int]:
    memory = share_memory()
    yield memory
    os.close(memory)


def frame(*values: int) -> Frame:
    array = np.array(values, np.int64)
    record = Array(str(array.dtype), array.shape, ARRAY_FORMAT, array_bytes(array))
    return Frame("reply", 1, RecordDict({"arrays": ArrayRecord({"a": record})}))


def values_of(received: Frame) -> list[int]:
    return list(received.content.array_records["arrays"]["a"].numpy())


@pytest.mark.parametrize("named", [False, True])
def test_pieces_are_read_as_they_were_written(named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if named:  # a system without memory that has no name
        monkeypatch.delattr(os, "memfd_create")
    memory = share_memory()
    for pieces in ([b"abc", b"", b"defg"], [b"x"]):
        write(memory, pieces)
        assert read(memory, [len(piece) for piece in pieces]) == pieces
    with pytest.raises(EOFError):
        read(memory, [100])
    os.close(memory)


def test_a_frame_goes_either_way_and_only_its_size_through_the_socket(memory: int) -> None:
    ours, theirs = (Connection(one.detach()) for one in socket.socketpair())
    sender, receiver = Channel(ours, memory, -1), Channel(theirs, -1, memory)
    for shared in (True, False):
        sender.send(frame(1, 2, 3), shared=shared)
        assert values_of(receiver.receive()) == [1, 2, 3]
        assert receiver.shared == shared
    ours.close()
    with pytest.raises(EOFError):
        receiver.receive()
    theirs.close()


HALF = """
import os, signal, sys
os.pwrite(int(sys.argv[1]), b"half a sum", 0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_has_half_written_is_not_read(memory: int) -> None:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", HALF, str(memory)], pass_fds=[theirs.fileno(), memory]
    )
    theirs.close()
    assert process.wait(60) == -signal.SIGKILL
    with Connection(ours.detach()) as connection, pytest.raises(EOFError):
        Channel(connection, -1, memory).receive()


def test_too_little_memory_is_one_sentence(memory: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SharedMemoryError, match=r"^1.5 MB of .* \(File too large\); use fewer"):
            write(memory, [bytes(1_500_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_run_without_enough_of_it_ends_with_that_sentence(
    smoke: Experiment, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no")

    with InProcessGrid(prepare(smoke.data, cache), workers=2) as grid:
        requests = dict.fromkeys(grid.get_node_ids(), Describe(smoke.to_toml()))
        # Describe has no arrays, and works without.
        monkeypatch.setattr(os, "pwrite", full)
        replies = dict(exchange(grid, requests, Described, 60.0))
        assert not any(isinstance(reply, Failure) for reply in replies.values())
        train = Train(smoke.to_toml(), 1, np.zeros(9, np.float32), np.zeros(1, np.int64), 1.0)
        with pytest.raises(UserError, match=r"memory \(No space left on device\); use fewer"):
            list(exchange(grid, {2: train}, Trained, 60.0))
