"""The reason for the end of a process, with stand-ins for the kernel's counters."""

import signal
from pathlib import Path

import pytest

from simulations.engines import ended
from simulations.engines.ended import oom_kills, reason_of_end

ADVICE = "use fewer --workers"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with stand-ins for the kernel's files: no kill, no pressure."""
    (tmp_path / "memory.events").write_text("low 0\nhigh 3\noom 4\noom_kill 2\noom_group_kill 0\n")
    (tmp_path / "pressure").write_text("some avg60=9.00 total=1\nfull avg60=0.00 total=1\n")
    files = [tmp_path / "memory.events", tmp_path / "missing"]
    monkeypatch.setattr(ended, "counter_files", lambda: iter(files))
    monkeypatch.setattr(ended, "pressure_file", lambda: tmp_path / "pressure")
    return tmp_path


def test_a_kill_for_lack_of_memory_is_said_with_what_to_do(kernel: Path) -> None:
    before = oom_kills()
    assert before == 2
    alone = reason_of_end(-signal.SIGKILL, before, ADVICE)
    assert alone == (
        "ended with code -9 (SIGKILL): it was killed, and nothing shows that memory was short"
    )
    (kernel / "memory.events").write_text("oom 5\noom_kill 3\n")
    said = reason_of_end(-signal.SIGKILL, before, ADVICE)
    assert "code -9 (SIGKILL): it was killed" in said
    assert "for lack of memory" in said
    assert said.endswith(ADVICE)


def test_pressure_is_named_where_no_kill_was_counted(kernel: Path) -> None:
    (kernel / "pressure").write_text("some avg60=40.0\nfull avg10=2 avg60=31.4 avg300=1 total=9\n")
    said = reason_of_end(-signal.SIGKILL, oom_kills(), ADVICE)
    assert "waited for it 31 % of the last minute" in said
    assert said.endswith(ADVICE)


@pytest.mark.parametrize(("code", "said"), [(1, "ended with code 1"),
                                            (-11, "ended with code -11 (SIGSEGV)")])  # fmt: skip
def test_other_ends_have_nothing_to_do_with_memory(kernel: Path, code: int, said: str) -> None:
    (kernel / "memory.events").write_text("oom_kill 3\n")
    assert reason_of_end(code, 2, ADVICE) == said


def test_the_kernel_has_such_a_counter_here() -> None:
    assert oom_kills() >= 0
    assert any(path.exists() for path in ended.counter_files())
