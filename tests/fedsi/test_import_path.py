"""Import paths of users' code: every key refuses the same ones, and errors name the user's line."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fedsi import Experiment, UserError
from fedsi.blame import reason
from fedsi.experiment import Experiment as Whole
from fedsi.experiment.field_types import EntryOf, Settings
from fedsi.import_path import load_own

CHOICES = [
    (f"{section}.{key}", mark)
    for section, field in Whole.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
    for key, inner in field.annotation.model_fields.items()
    for mark in inner.metadata
    if isinstance(mark, EntryOf)
]
"""Every key whose value is an entry of a table."""
OWN = [key for key, mark in CHOICES if mark.table.own and not mark.key]


def test_the_keys_that_choose_an_entry_are_known() -> None:
    assert {"task.name", "model.architecture", "model.positions", "privacy.mechanism"} <= {
        key for key, _ in CHOICES
    }
    assert all(key == (mark.key or mark.table.key) for key, mark in CHOICES)


@pytest.mark.parametrize("key", [key for key, _ in CHOICES])
def test_an_unknown_name_is_told_all_names_and_the_nearest_if_it_is_near(key: str) -> None:
    table = dict(CHOICES)[key].table
    first = next(iter(table))
    with pytest.raises(UserError) as error:
        Experiment().updated({key: f"{first}x"})
    assert f"{key} = '{first}x' is not allowed: did you mean {first}? expected one of" in str(
        error.value
    )
    assert all(name in str(error.value) for name in table)
    with pytest.raises(UserError, match=r"is not allowed: expected one of"):
        Experiment().updated({key: "qqqqqq"})


@pytest.mark.parametrize("key", OWN)
@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("__main__:mine", "put mine into a separate file"),
        ("os:_exit", "os is a module of Python itself"),
        ("xml.dom:Node", "is a module of Python itself"),
        ("my_model.py:mine.x", "is no import path; write it as in my_package.my_module:name"),
        (":mine", "is no import path"),
        ("mine:", "is no import path"),
    ],
)
def test_what_is_no_import_path_of_the_users_is_refused(key: str, path: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        Experiment().updated({key: path})
    assert str(error.value).startswith(f"{key} = {path!r}")


@pytest.mark.parametrize("key", [key for key, _ in CHOICES if key not in OWN])
def test_tables_of_fedsis_own_take_no_import_path(key: str) -> None:
    with pytest.raises(UserError, match="is not allowed: expected one of"):
        Experiment().updated({key: "my_package.my_module:name"})


def test_what_cannot_be_imported_is_one_sentence_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_own.py").write_text("\n\n1 / 0\n")
    (tmp_path / "whole_own.py").write_text("one = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"^task.name = .*ZeroDivisionError: .*_own.py, line 3\)$"):
        load_own("task.name", "broken_own:one")
    with pytest.raises(UserError, match=r"^there is no module nowhere_at_all, which task.name = "):
        load_own("task.name", "nowhere_at_all:one")
    with pytest.raises(UserError, match=r"own.py\) has no two, which task.name = .* define it"):
        load_own("task.name", "whole_own:two")
    assert load_own("task.name", "whole_own:one") == 1


def test_the_line_is_the_users_and_no_librarys() -> None:
    with pytest.raises(RuntimeError) as error:
        nn.Linear(2, 2)(torch.zeros(3))
    assert reason(error.value).endswith(f"({__file__}, line {error.tb.tb_lineno})")
