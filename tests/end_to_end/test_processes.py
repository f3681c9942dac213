"""User files with the names of fedsi's packages or of modules of the standard library."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedsi import Experiment
from fedsi.hidden_packages import check_not_hidden
from server.runs.folder import RunFolder
from simulations import simulate
from simulations.engines.processes import inherited_environment, own_command
from simulations.studies.runner import run_trials
from tests.test_docs import fenced

HIDING = ("server.py", "clients.py", "fedsi.py", "simulations.py", "random.py", "numpy.py")
REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("fresh_processes")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a user's model, and files that must not be imported."""
    for name in HIDING:
        (tmp_path / name).write_text("raise RuntimeError('this is the wrong file')\n")
    (tmp_path / "my_model.py").write_text(fenced("docs/own-model.md", "python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, ""])
    return tmp_path


def test_workers_and_studies_import_the_right_files(
    smoke: Experiment, cache: Path, folder: Path
) -> None:
    changes = {"server.rounds": 1, "server.cohort_size": 2, "server.evaluation_clients": 2}
    own = smoke.updated({**changes, "model.architecture": "my_model:Gru"})
    assert simulate(own, workers=2, cache=cache).summary.clients_trained == 2
    told: list[str] = []
    trials = {"trial": smoke.updated(changes)}
    run_trials(trials, folder, cache, 1, fresh=True, on_records=lambda name, _: told.append(name))
    assert told
    assert RunFolder(folder / "trial").summary()


def test_the_packages_are_found_where_only_a_finder_at_the_end_knows_them(folder: Path) -> None:
    environment = inherited_environment()
    paths = environment.pop("PYTHONPATH").split(":")
    assert str(folder) not in paths
    environment["PYTHONPATH"] = ":".join(p for p in paths if Path(p).resolve() != REPOSITORY)
    done = subprocess.run(
        own_command("server.cohort_secret"), env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", ["import fedsi", "from simulations import simulate"])
def test_a_file_beside_a_script_that_hides_a_package_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "server.py").touch()
    (tmp_path / "study.py").write_text(f"import sys\nsys.path.append({str(REPOSITORY)!r})\n{line}")
    environment = {**inherited_environment(), "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "study.py"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: {tmp_path}/server.py hides fedsi's package 'server' from Python's import; "
        "rename it"
    )


def test_a_folder_without_code_hides_what_only_a_finder_at_the_end_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "server").mkdir(parents=True)
    (tmp_path / "there" / "server").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "here")])
    monkeypatch.delitem(sys.modules, "server")
    with pytest.raises(ImportError, match=r"here/server hides fedsi's package 'server'"):
        check_not_hidden(tmp_path / "there", ["server"])


def test_the_command_says_so_without_a_traceback(folder: Path) -> None:
    environment = {**inherited_environment(), "PYTHONPATH": f"{folder}:{REPOSITORY}"}
    for name in set(HIDING) - {"clients.py"}:
        (folder / name).unlink()
    start = "from simulations.cli.start import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", start, "run"], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {folder}/clients.py hides fedsi's package 'clients' from Python's import; "
        "rename it\n"
    )
