"""Models given as objects are known for that call; importable ones are named by their path."""

from functools import partial

import pytest
from torch import nn

from fedsi import UserError
from fedsi.model_objects import giving, is_given, path_of, shown
from fedsi.models.table import architecture
from fedsi.models.user_model import load_factory
from tests import own_models


def local(size: int) -> type[nn.Module]:
    class Inner(nn.Module):
        sizes = size

    return Inner


def test_what_can_be_imported_has_its_import_path() -> None:
    assert path_of(own_models.Gru) == "tests.own_models:Gru"
    assert path_of(own_models.dropout) == "tests.own_models:dropout"


def test_anything_else_has_a_path_that_stands_for_it() -> None:
    assert path_of(local(1)) == "fedsi.model_objects:Inner"
    assert path_of(lambda size: nn.Embedding(size, size)) == "fedsi.model_objects:model"
    assert path_of(partial(own_models.Gru)) == "fedsi.model_objects:model"
    assert is_given(path_of(local(1)))
    assert not is_given("tests.own_models:Gru")
    assert shown(path_of(local(1))) == architecture(path_of(local(1))).label == "Inner"


def test_it_is_known_while_it_is_given() -> None:
    first, second = local(1), local(2)
    with giving(first) as path:
        assert load_factory(path) is first
        with giving(second) as again:
            assert again == path
            assert load_factory(path) is second
        assert load_factory(path) is first
    with pytest.raises(UserError, match=r"^the model Inner was an object .* give it") as error:
        load_factory(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (own_models.Gru(3), "^model is a Gru, a module that is built already; give its class"),
        ("my_model:Gru", "^model is a str; give a class or function .* with model.architecture$"),
    ],
)
def test_what_builds_nothing_is_refused(model: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        path_of(model)
