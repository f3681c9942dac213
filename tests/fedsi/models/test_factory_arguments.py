"""Arguments that a user's factory does not take are refused with its file and line."""

from functools import partial
from typing import Any

import pytest
from torch import nn

from fedsi import Experiment, UserError
from fedsi.models.build import build_model
from fedsi.models.factory_arguments import check_arguments
from tests.own_models import Gru


class Wide(Gru):
    def __init__(self, vocabulary_size: int, width: int, *, depth: int = 1) -> None:
        super().__init__(vocabulary_size)
        self.between = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))


class Wider(Wide):
    """Has its first class's ``__init__``."""


def anything(vocabulary_size: int, **arguments: int) -> nn.Module:
    return Wide(vocabulary_size, **arguments)


LINE = Wide.__init__.__code__.co_firstlineno
HERE = __file__


@pytest.mark.parametrize("name", ["Wide", "Wider", "anything"])
def test_they_reach_the_factory(name: str) -> None:
    arguments = {"width": 3, "depth": 2}
    model = {"architecture": f"{__name__}:{name}", "arguments": arguments}
    built = build_model(Experiment(model=model, data={"sequence_length": 3}), 11)
    assert built.layout.shapes["between.1.weight"] == (3, 3)


@pytest.mark.parametrize(
    ("factory", "arguments", "sentence"),
    [
        (
            Wide,
            {"widht": 3},
            "my:Wide takes no argument widht, which model.arguments has for it; did you mean "
            f"width? it takes width, depth ({HERE}, line {LINE})",
        ),
        (
            Wider,
            {"depth": 3},
            f"my:Wide needs the argument width; set model.arguments.width ({HERE}, line {LINE})",
        ),
        (
            Gru,
            {"width": 3},
            "my:Wide takes no argument width, which model.arguments has for it; it takes none "
            "except the size of the vocabulary (",
        ),
        (
            partial(Wide, width=3),
            {"vocabulary_size": 3},
            "my:Wide takes no argument vocabulary_siz",
        ),
    ],
)
def test_others_are_refused_with_the_line(
    factory: Any, arguments: dict[str, int], sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        check_arguments("my:Wide", factory, arguments)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_what_takes_anything_is_called() -> None:
    for factory in (anything, partial(Wide, width=3), dict):
        check_arguments("my:Wide", factory, {"depth": 3} if factory is not dict else {})
