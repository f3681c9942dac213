"""Groups of options that several commands share: a dataclass, each field of which is an option."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

Command = Callable[..., None]


def grouped(command: Command) -> Command:
    """Return a command with an option for each field of the parameters that are dataclasses.

    Typer reads the options from the signature; the command gets the dataclasses.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for name, kind in get_type_hints(command, include_extras=True).items():
        if name == "return":
            continue
        if is_dataclass(kind):
            groups[name] = kind
            hints = get_type_hints(kind, include_extras=True)
            parameters += [_option(one.name, hints[one.name], one.default) for one in fields(kind)]
        else:
            default = inspect.signature(command).parameters[name].default
            parameters.append(_option(name, kind, default))

    @wraps(command)
    def with_groups(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{one.name: given.pop(one.name) for one in fields(kind)})
        command(**given)

    with_groups.__annotations__ = {one.name: one.annotation for one in parameters}
    vars(with_groups)["__signature__"] = inspect.Signature(parameters)
    return with_groups


def _option(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
