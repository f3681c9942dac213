"""Output of user code goes to standard error, and libraries' warnings are suppressed."""

import json
import logging
import sysconfig
import warnings
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import fedsi
from simulations.cli.main import main
from simulations.reports.figures import save_figure
from simulations.safe_text import is_of_a_library, log_to_stderr

LIBRARY = f"{sysconfig.get_path('purelib')}/some_library/module.py"
LOUD = ["--preset", "smoke", "--set", "model.architecture=tests.own_models:Loud"]
LOUD += ["--set", "server.rounds=1", "--set", "server.cohort_size=2"]


def test_a_model_that_prints_leaves_json_alone(
    cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, more = str(tmp_path / "r"), ["--cache", str(cache), "--json"]
    runs = [
        ["run", *LOUD, *more, "--out", folder],
        ["run", *LOUD, *more, "--out", folder, "--overwrite", "--workers", "2"],
        ["evaluate", folder, *more, "--trust"],
        ["predict", folder, "word3", "--json", "--trust"],
        ["generate", folder, "--json", "--trust"],
        ["export", folder, "--format", "torch-export", "--json", "--trust"],
    ]
    for command in runs:
        assert main(command) == 0
        captured = capfd.readouterr()
        json.loads(captured.out)
        assert captured.out.count("\n") == 1
        assert "called on" in captured.err
        assert "without Python" in captured.err


def test_a_librarys_warnings_are_not_a_persons(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn() -> float:
        for file in (LIBRARY, "my_model.py", fedsi.__file__):
            warnings.warn_explicit(f"from {Path(file).name}", UserWarning, file, 1)
        return 0.1

    monkeypatch.setattr("simulations.cli.data.time.perf_counter", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main(["data", "prepare", "synthetic", "--cache", str(cache)])
    found = capsys.readouterr().err
    assert "warning: from my_model.py" in found
    assert "warning: from __init__.py" in found
    assert "from module.py" not in found


def test_a_librarys_log_is_kept_back_unless_something_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    log_to_stderr()
    for file in (LIBRARY, "my_model.py"):
        for level in (logging.WARNING, logging.ERROR):
            text = f"{Path(file).name} {level}"
            logging.root.handle(logging.LogRecord("x", level, file, 1, text, None, None))
    found = capsys.readouterr().err
    assert found.splitlines() == [
        "ERROR: module.py 40", "WARNING: my_model.py 30", "ERROR: my_model.py 40"
    ]  # fmt: skip


def test_fedsi_is_no_library_wherever_it_is_installed() -> None:
    assert not is_of_a_library(fedsi.__file__)
    assert is_of_a_library(LIBRARY)


def test_a_figure_with_signs_that_its_font_lacks_is_no_warning(tmp_path: Path) -> None:
    figure = Figure()
    figure.suptitle("日本語 नमस्ते")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(figure, tmp_path / "figure")


def test_folders_are_named_on_one_line(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a\nb"
    main(["data", "describe", "synthetic", "--cache", str(cache), "--out", str(folder)])
    assert f"picture: {tmp_path}/a\\nb/clients.png\n" in capsys.readouterr().err
