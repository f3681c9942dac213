"""Models given as objects: classes or functions of this process that others cannot import.

The experiment records such a model as ``fedsi.model_objects:Name``. The object itself is
known while the run lasts; it must be given again to resume or open the run.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fedsi.blame import kind_of
from fedsi.errors import UserError

Factory = Callable[..., object]

_MODULE = __name__
_given: dict[str, Factory] = {}
"""The objects currently known, by their architecture names."""


def is_given(path: str) -> bool:
    """Whether an architecture stands for a given object."""
    return path.startswith(f"{_MODULE}:")


def shown(path: str) -> str:
    """Return an architecture's name in messages; for a given object its name alone."""
    return path.partition(":")[2] if is_given(path) else path


@contextmanager
def giving(model: Factory | None, path: str | None = None) -> Iterator[str]:
    """Within this context a model is known.

    Args:
        model: A class or a function that builds a module; None for a model that is imported.
        path: The architecture name; None to choose one.

    Yields:
        The architecture: an import path if the object can be imported, empty without a model.

    Raises:
        UserError: It is neither a class nor a function.
    """
    if model is None:
        yield ""
        return
    place = path or path_of(model)
    before = _given.get(place)
    _given[place] = model
    try:
        yield place
    finally:
        del _given[place]
        if before is not None:
            _given[place] = before


def path_of(model: object) -> str:
    """Return the architecture name of an object: its import path, if it can be imported anywhere.

    Raises:
        UserError: It is neither a class nor a function.
    """
    if hasattr(model, "named_parameters") and not isinstance(model, type):
        raise UserError(
            f"model is {kind_of(model)}, a module that is built already; give its class, or a "
            "function that builds it for a size of the vocabulary"
        )
    if not callable(model):
        raise UserError(
            f"model is {kind_of(model)}; give a class or function that builds a torch.nn.Module, "
            "or name it with model.architecture"
        )
    module, name = str(getattr(model, "__module__", "")), getattr(model, "__qualname__", "")
    home: Any = sys.modules.get(module)
    if module != "__main__" and name.isidentifier() and getattr(home, name, None) is model:
        return f"{module}:{name}"
    name = getattr(model, "__name__", "")
    return f"{_MODULE}:{name if name.isidentifier() else 'model'}"


def given_factory(path: str) -> Factory:
    """Return the object of an architecture name.

    Raises:
        UserError: It is not known in this process.
    """
    if path not in _given:
        raise UserError(
            f"the model {shown(path)} was an object of the program that ran this and is not "
            "stored; in Python give it again, as in simulate(..., model=...) and "
            "open_run(..., model=...), or put it into a file and name it with model.architecture"
        )
    return _given[path]
