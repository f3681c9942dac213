"""How the command begins: what it imports, how long that takes, and systems that lack something."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedsi.data.cache import cache_folder
from fedsi.errors import UserError

REPOSITORY = Path(__file__).parents[2]
HEAVY = {"dp_accounting", "flwr", "matplotlib", "numba", "numpy", "opacus", "pandas", "pydantic"}
HEAVY |= {"scipy", "torch"}
COMMANDS = [
    "run", "compare", "tradeoff", "lengths", "predict", "generate", "evaluate", "export", "audit",
    "privacy", "data describe", "data prepare", "bench ingestion", "bench peers", "bench roofline",
]  # fmt: skip
LIMIT_SECONDS = 0.4
"""Of the processor, until --help is printed."""

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


@pytest.mark.parametrize("command", ["", "run"])
def test_help_is_printed_at_once(command: str) -> None:
    spent = [json.loads(python(HELP.format(commands=[command])).stdout)[1] for _ in range(3)]
    assert min(spent) < LIMIT_SECONDS


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
