"""Code that a file may name without the user's consent."""

import sys
from pathlib import Path

import pytest

from fedsi import Experiment, UserError
from fedsi.models.user_model import load_factory
from fedsi.trust import check_trusted, find_module

KEY = "model.architecture"


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path beside the working folder; importing its modules fails."""
    work, strange = tmp_path / "work", tmp_path / "strange"
    for folder in (work, strange / "its_package" / "inner", work / "run"):
        folder.mkdir(parents=True)
    code = "raise RuntimeError('imported')\n"
    (strange / "its_module.py").write_text(code)
    (strange / "its_package" / "__init__.py").write_text(code)
    (strange / "its_package" / "inner" / "deep.py").write_text(code)
    (work / "mine.py").write_text(code)
    (work / "run" / "came_along.py").write_text(code)
    (work / "link.py").symlink_to(strange / "its_module.py")
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "path", [*sys.path, str(strange), ""])
    return strange


@pytest.mark.parametrize(
    "module", ["its_module", "its_package", "its_package.inner.deep", "link", "run.came_along"]
)
def test_code_that_may_have_come_with_the_file_is_refused(module: str, strange: Path) -> None:
    with pytest.raises(
        UserError, match=r"^run asks for model.architecture = '.*', whose code is .*--trust$"
    ):
        check_trusted({KEY: f"{module}:Gru"}, Path("run"))
    assert module not in sys.modules


@pytest.mark.parametrize("architecture", ["si_cifg", "mine:Gru", "torch.nn:GRU", "nowhere:Gru"])
def test_own_and_installed_code_is_not(architecture: str, strange: Path) -> None:
    check_trusted(Experiment(model={"architecture": architecture}).import_paths, Path("run"))
    assert "mine" not in sys.modules


def test_a_module_beside_an_experiments_file_is_the_users(strange: Path) -> None:
    check_trusted({KEY: "run.came_along:Gru"}, Path("experiment.toml"))


def test_a_module_is_found_without_an_import(strange: Path) -> None:
    deep = strange / "its_package" / "inner" / "deep.py"
    assert find_module(["its_package", "inner", "deep"]) == deep
    assert find_module(["its_package", "inner", "none"]) is None
    assert find_module(["its_module", "inner"]) is None
    assert find_module(["nowhere"]) is None


@pytest.mark.parametrize("name", ["os:_exit", "sys:exit", "builtins:exec", "xml.dom:Node"])
def test_python_itself_has_no_models(name: str) -> None:
    with pytest.raises(UserError, match="is a module of Python itself"):
        Experiment().updated({"model.architecture": name})


def test_only_what_a_module_defines_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with_imports.py").write_text(
        "from os import abort\nfrom pathlib import Path\nfrom functools import partial\n"
        "quick = partial(abort)\nmine = partial(lambda size: size)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="'with_imports:abort' names is defined in posix"):
        load_factory("with_imports:abort")
    with pytest.raises(UserError, match="'with_imports:quick' names is defined in posix"):
        load_factory("with_imports:quick")
    with pytest.raises(UserError, match="is a class, but not one of"):
        load_factory("with_imports:Path")
    assert load_factory("with_imports:mine")(3) == 3
