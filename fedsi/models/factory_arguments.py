"""Checks of the arguments in ``model.arguments`` against a user's factory."""

import difflib
import inspect
from collections.abc import Callable, Collection

from fedsi.blame import place_of
from fedsi.errors import UserError
from fedsi.experiment.model_arguments import KEY


def check_arguments(path: str, factory: Callable[..., object], given: Collection[str]) -> None:
    """Refuse arguments that a factory does not accept, and missing ones that it needs.

    Args:
        path: The factory's import path, for the message.
        factory: A function or a class; its first argument is the size of the vocabulary.
        given: Names of the arguments.

    Raises:
        UserError: The arguments do not match; gives the factory's names and the line of its
            definition.
    """
    try:
        _, *parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # without a signature, or without a first argument
        return
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = {each.name: each.default is each.empty for each in parameters if each.kind in named}
    for name in given:
        if name not in taken:
            raise UserError(
                f"{path} takes no argument {name}, which {KEY} has for it; "
                f"{_nearest(name, list(taken))}{place_of(factory)}"
            )
    for name, needed in taken.items():
        if needed and name not in given:
            raise UserError(
                f"{path} needs the argument {name}; set {KEY}.{name}{place_of(factory)}"
            )


def _nearest(name: str, taken: list[str]) -> str:
    if not taken:
        return "it takes none except the size of the vocabulary"
    near = difflib.get_close_matches(name, taken, n=1)
    return f"{f'did you mean {near[0]}? ' if near else ''}it takes {', '.join(taken)}"
