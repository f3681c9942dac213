"""``model.arguments``: typed as in TOML, immutable, and a part of the experiment."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi import Experiment, UserError
from fedsi.experiment import parse_overrides
from fedsi.experiment.model_arguments import Arguments
from fedsi.privacy.noise_streams import noise_key

OWN = {"architecture": "my_model:Gru"}
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
TABLES = st.dictionaries(st.from_regex("[a-z_][a-z0-9_]{0,5}", fullmatch=True), VALUES, max_size=4)


def own(**arguments: Any) -> Experiment:
    return Experiment(model={**OWN, "arguments": arguments})


@given(TABLES)
def test_toml_and_objects_are_the_same(arguments: dict[str, Any]) -> None:
    experiment = own(**arguments)
    again = Experiment.from_toml(experiment.to_toml())
    assert again == experiment
    assert repr(dict(again.model.arguments)) == repr(dict(sorted(arguments.items())))
    assert hash(again.model) == hash(experiment.model)


def test_an_experiment_without_arguments_is_written_as_before() -> None:
    assert "arguments" not in Experiment().to_toml()


def test_numbers_keep_their_type() -> None:
    assert own(width=1) != own(width=1.0)
    assert own(width=1) != own(width=True)
    assert own(width=1).continues(own(width=1))
    assert not own(width=1).continues(own(width=2))


def test_the_noise_depends_on_them() -> None:
    keys = {noise_key(own(**each), "") for each in ({}, {"width": 1}, {"width": 2})}
    assert len(keys) == 3


def test_nothing_can_be_changed() -> None:
    table = own(sizes=[1, 2]).model.arguments
    table["sizes"].append(3)
    assert table == Arguments({"sizes": [1, 2]})
    with pytest.raises(TypeError):
        table["sizes"] = 3  # type: ignore[index]


def test_single_ones_can_be_set_on_a_command_line() -> None:
    words = ["width=32", "rate=.5", "kind=gelu", "sizes=[1, 2]", "tied=True", "name='3'"]
    changes = parse_overrides(f"model.arguments.{word}" for word in words)
    found = own(width=1).updated(changes).model.arguments
    assert dict(found) == {
        "width": 32, "rate": 0.5, "kind": "gelu", "sizes": [1, 2], "tied": True, "name": "3",
    }  # fmt: skip
    assert own(width=1, rate=2).updated({"model.arguments": {"width": 3}}) == own(width=3)


def test_another_architecture_of_fedsis_leaves_them_behind() -> None:
    assert not own(width=1).updated({"model.architecture": "gru"}).model.arguments
    with pytest.raises(UserError, match=r"^model.arguments=.* no effect with .*=gru"):
        Experiment().updated({"model.architecture": "gru", "model.arguments.width": 1})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (3, r"^model.arguments = 3 is not allowed: expected a table of arguments$"),
        ({"my-width": 3}, "^model.arguments has 'my-width', which is no name of an argument$"),
        ({"width": None}, r"^model.arguments.width = None is not allowed: expected a truth value,"),
        ({"width": float("inf")}, "^model.arguments.width = inf is not allowed"),
        ({"width": [1, {"a": 2}]}, r"^model.arguments.width = \{'a': 2\} is not allowed"),
    ],
)
def test_anything_else_is_refused(arguments: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Experiment(model={**OWN, "arguments": arguments})
    with pytest.raises(
        UserError, match=r"no key model\.arguments\.a\.b; did you mean model.arguments"
    ):
        own(a=1).updated({"model.arguments.a.b": 1})
