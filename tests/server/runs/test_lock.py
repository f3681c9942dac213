"""Only one process at a time works in a folder, even if many try to lock it at once."""

import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedsi import Experiment, UserError
from server.runs.folder import RunFolder
from server.runs.lock import held

HOLDER = """
import sys, time
from pathlib import Path
from server.runs.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_process_and_let_go_when_it_dies(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"{folder} is in use by another process"), held(folder):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    with held(folder, wait=10):
        (folder / "file").touch()
    holder.communicate()
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_who_holds_a_folder_may_hold_it_again(tmp_path: Path) -> None:
    with held(tmp_path):
        with held(tmp_path):
            pass
        assert len(list(tmp_path.iterdir())) == 1  # still locked


def test_a_folder_that_nothing_was_written_to_goes(tmp_path: Path) -> None:
    with held(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"), held(tmp_path / "file" / "below"):
        pass


def test_of_two_that_claim_a_folder_at_once_exactly_one_wins(tmp_path: Path) -> None:
    together = threading.Barrier(2)

    def claim(number: int) -> bool:
        folder = RunFolder(tmp_path / str(number))
        together.wait()
        try:
            with folder.held():
                folder.claim(Experiment(), overwrite=False, resume=False)
        except UserError as error:
            assert re.search("in use by another process|already holds a run", str(error))  # noqa: PT017
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        for number in range(100):
            assert sorted(threads.map(claim, (number, number))) == [False, True]
