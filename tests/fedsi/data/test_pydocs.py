import json
from pathlib import Path

import pytest

from fedsi.data import pydocs
from fedsi.data.corpus import silent
from fedsi.data.population import read_meta
from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import DataSettings

DOCSTRING = """Return the widget. It is `never` None,
    unless asked.

>>> widget()
None

Parameters
----------
x : int
    The number of things.

name    meaning
one     the first

Args:
    y (int): Something else entirely.

:param z: A field of a list.

It also works for :class:`~a.Gadget` objects!"""


def test_prose_is_kept_and_the_rest_dropped() -> None:
    assert list(pydocs.docstring_sentences(DOCSTRING)) == [
        "Return the widget.",
        "It is never None, unless asked.",
        "It also works for a.Gadget objects!",
    ]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder of sources that fail if they are run, and let only this folder be searched."""
    root = tmp_path / "package"
    root.mkdir()
    modules = [
        pydocs.Module(f"package.m{k}", f"package.m{k % 20}", root / f"m{k}.py") for k in range(120)
    ]
    for number, module in enumerate(modules):
        letters = "".join(chr(97 + int(digit)) for digit in str(number))
        lines = " ".join(f"Word {letters} in line {chr(97 + k) * 3}." for k in range(5))
        body = f'def f():\n    if True:\n        class C:\n            """{lines}"""\n'
        module.path.write_text(f'"""This sentence stands everywhere."""\nraise SystemExit\n{body}')
    monkeypatch.setattr(pydocs, "find_modules", lambda: modules)
    return root


def test_extraction_runs_nothing_and_drops_repeated_sentences(
    package: Path, tmp_path: Path
) -> None:
    (package / "m3.py").write_text("def broken(:\n")
    assert pydocs.extract(tmp_path / "c.jsonl", silent) == 119
    rows = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert sum(row["text"] == "This sentence stands everywhere." for row in rows) == 1
    assert {row["user"] for row in rows} == {f"package.m{k}" for k in range(120)} - {"package.m3"}
    assert len(rows) == 119 * 5 + 1


def test_whole_packages_are_held_out(package: Path, tmp_path: Path) -> None:
    assert package.exists()
    population = open_population(prepare(DataSettings(corpus="pydocs"), tmp_path / "cache"))
    # 20 packages of 6 modules; a tenth of 120 clients is two of them.
    assert population.description.heldout_clients == 12
    assert population.description.corpus == "pydocs"


def test_missing_sources_fall_back_to_synthetic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pydocs, "find_modules", list)
    with pytest.warns(UserWarning, match="using the synthetic corpus instead"):
        folder = prepare(DataSettings(corpus="pydocs"), tmp_path)
    assert read_meta(folder)["description"]["corpus"] == "synthetic"


def test_the_installed_packages_have_sources() -> None:
    modules = pydocs.find_modules()
    names = {module.name for module in modules}
    assert {"asyncio", "torch.nn.modules.rnn", "numpy"} <= names
    packages = {module.name: module.package for module in modules}
    assert packages["torch.nn.modules.rnn"] == "torch.nn"
    assert packages["asyncio.tasks"] == "asyncio"
    assert not any(".tests." in name for name in names)
