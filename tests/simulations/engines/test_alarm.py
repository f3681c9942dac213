"""Time limits on code of this process: Python, the compiler, and C code that never ends."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from simulations.engines import alarm

COMPILES = """
import time
from numba import njit
from simulations.engines.alarm import OutOfTimeError, time_limit
try:
    with time_limit(0.05, str):
        for number in range(5):
            njit("f8(f8)")(lambda x: x ** 3 + 1.0 / x)
        print("compiled")
        time.sleep(60)
except OutOfTimeError:
    print("ended")
"""

STUCK = """
import ctypes
import torch
from torch import nn

class M(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 8)
        self.output = nn.Linear(8, vocabulary)
    def forward(self, ids):
        if bool((ids[:, 0] == 1).all()) and torch.is_grad_enabled() and int(ids.sum()) % 100 < 10:
            libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)  # which this thread has; signals do not end the wait
        return self.output(self.embedding(ids))
"""
COMMAND = """
import sys
from simulations.engines import alarm
from simulations.cli.main import main
alarm.GRACE_SECONDS = 0.5
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("fresh_processes")
def test_the_compiler_is_not_interrupted() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILES], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.split()[-1] == "ended"
    assert done.stderr == ""


def test_a_command_ends_where_nothing_ends_its_client(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    command = [sys.executable, "-c", COMMAND, "run", "--preset", "smoke", "--cache", str(cache)]
    command += ["--set", "model.architecture=stuck:M", "--set", "server.round_timeout=2"]
    done = subprocess.run(
        [*command, "--out", "o"], capture_output=True, text=True, timeout=300, check=False,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the node failed: it gave no answer within 2 s (client ")
    assert "continue with --resume and --workers 2" in last


def test_a_program_of_somebody_elses_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "GRACE_SECONDS", 0.05)
    with pytest.raises(alarm.OutOfTimeError), alarm.time_limit(0.01, str):
        time.sleep(60)
    with alarm.own_process(), alarm.time_limit(0.01, str):
        pass
    time.sleep(0.2)  # one that was over in time ends nothing


def test_no_thread_outlives_the_code_that_it_watched() -> None:
    for _ in range(100):
        before = threading.active_count()
        with alarm.own_process(), alarm.time_limit(60, str):
            pass
        assert threading.active_count() == before
