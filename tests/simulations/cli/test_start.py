"""Start of the command: its imports, their time, and systems without some features."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedsi.data.cache import cache_folder
from fedsi.errors import UserError
from fedsi.threads import available_cores
from simulations.benchmarks.machine import BenchmarkError, peak_memory
from simulations.cli.main import main

REPOSITORY = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("fresh_processes")
HEAVY = {"dp_accounting", "flwr", "matplotlib", "numba", "numpy", "opacus", "pandas", "pydantic"}
HEAVY |= {"scipy", "torch"}
COMMANDS = [
    "run", "compare", "tradeoff", "lengths", "predict", "generate", "evaluate", "export", "audit",
    "data describe", "data prepare", "bench ingestion", "bench peers", "bench roofline",
]  # fmt: skip
LIMIT = 4
"""Processor time until --help is printed, over that of importing the libraries that print it."""
LIBRARIES = """
import time, typer, rich.console, rich.progress, rich.table
print(time.process_time())
"""

HELP = """
import contextlib, io, json, sys, time
from simulations.cli.main import main
for command in {commands}:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*command.split(), "--help"]) == 0
    assert "Usage" in printed.getvalue()
print(json.dumps([sorted(name.partition(".")[0] for name in sys.modules), time.process_time()]))
"""


def python(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )


def test_no_help_imports_a_heavy_library() -> None:
    done = python(HELP.format(commands=["", *COMMANDS]))
    assert done.returncode == 0, done.stderr
    assert HEAVY.isdisjoint(json.loads(done.stdout)[0])


def test_help_that_lists_keys_loads_the_settings_and_no_more() -> None:
    done = python(HELP.format(commands=["privacy"]))
    assert done.returncode == 0, done.stderr
    assert (HEAVY - {"numpy", "pydantic"}).isdisjoint(json.loads(done.stdout)[0])


@pytest.mark.parametrize("command", ["", "run"])
def test_help_is_printed_at_once(command: str) -> None:
    spent = [json.loads(python(HELP.format(commands=[command])).stdout)[1] for _ in range(3)]
    least = min(float(python(LIBRARIES).stdout) for _ in range(3))
    assert min(spent) < LIMIT * least


def test_an_interrupt_before_there_is_a_handler_is_one_sentence() -> None:
    script = """
import sys, types
class Interrupted(types.ModuleType):
    def __getattr__(self, name):
        raise KeyboardInterrupt
sys.modules["simulations.cli.signals"] = Interrupted("simulations.cli.signals")
from simulations.cli.start import main
sys.exit(main())
"""
    done = python(script)
    assert done.returncode == 1
    assert done.stderr == "error: interrupted while libraries were loaded\n"


def test_an_interrupt_while_the_commands_are_built_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.main.get_command", interrupted)
    assert main(["--version"]) == 1
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_run_without_privacy_imports_neither_accountants_nor_the_tables_library() -> None:
    script = "import json, sys, simulations.simulation; print(json.dumps(list(sys.modules)))"
    loaded = set(json.loads(python(script).stdout))
    assert {"dp_accounting", "matplotlib", "opacus", "pandas"}.isdisjoint(loaded)


def test_without_a_home_folder_the_cache_has_to_be_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(UserError, match=r"no home folder .* name another with --cache"):
        cache_folder(Path("~/.cache/fedsi"))
    assert cache_folder(tmp_path) == tmp_path


WITHOUT = """
import sys
import filelock  # which locks by other means on Windows, and warns on a Linux without fcntl
for name in ("fcntl", "resource"):
    sys.modules[name] = None
from simulations.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_system_without_fcntl_has_the_version_and_the_help() -> None:
    assert python(WITHOUT, "--version").stdout.startswith("fedsi ")
    assert python(WITHOUT, "run", "--help").returncode == 0


def test_a_system_without_fcntl_is_told_which_systems_have_it() -> None:
    done = python(WITHOUT, "run", "--preset", "smoke")
    assert done.returncode == 2
    assert done.stderr == (
        "error: this system has no fcntl: fedsi runs on Linux and macOS; on Windows use the "
        "Windows Subsystem for Linux\n"
    )


def test_all_cores_count_where_the_system_cannot_tell_which_are_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cores() == os.cpu_count()


@pytest.mark.slow
def test_a_comparison_runs_where_the_system_cannot_tell_which_cores_are_ours(
    cache: Path, tmp_path: Path
) -> None:
    script = "import os, sys; del os.sched_getaffinity\nfrom simulations.cli.main import main\n"
    script += "sys.exit(main(sys.argv[1:]))"
    arguments = ["--preset", "smoke", "--set", "server.rounds=1", "--architectures", "cifg"]
    arguments += ["--client-learning-rates", "1", "--out", str(tmp_path), "--cache", str(cache)]
    done = python(script, "compare", *arguments)
    assert done.returncode == 0, done.stderr


def test_the_memory_of_another_process_needs_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", _nothing_there)
    assert peak_memory() > 1 << 20
    with pytest.raises(BenchmarkError, match="needs /proc"):
        peak_memory(1)


def _nothing_there(path: Path, **_: object) -> str:
    raise FileNotFoundError(path)
