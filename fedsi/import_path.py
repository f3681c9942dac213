"""Import paths of the user's own code, ``my_package.my_module:name``, as values of keys."""

import importlib
import sys
from functools import partial
from types import ModuleType
from typing import Any

from fedsi.blame import reason
from fedsi.errors import UserError


def is_import_path(name: str) -> bool:
    """Whether a name has the form of an import path."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), attribute])


def check_import_path(key: str, path: str, noun: str, plural: str) -> None:
    """Refuse import paths outside the user's code, or that other processes cannot import.

    Args:
        key: The key of the experiment that has the path as its value.
        path: The import path.
        noun: The kind of object it should name, such as ``factory``.
        plural: What such objects provide, such as ``models``.

    Raises:
        ValueError: It names the running script, or a module of Python itself.
    """
    module = path.partition(":")[0]
    if module == "__main__":
        raise ValueError(
            f"{key} = {path!r} names the script that is running, which other processes cannot "
            f"import; put the {noun} into a file of its own"
        )
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(
            f"{key} = {path!r} is not allowed: {module} is a module of Python itself, which has no "
            f"{plural}; name one of yours, as in 'my_package.my_module:{noun}'"
        )


def load_own(key: str, path: str, signature: str) -> Any:
    """Return the object that an import path names.

    Args:
        key: The key of the experiment that has the path as its value.
        path: ``my_package.my_module:name``.
        signature: The signature that it will be called with, such as ``(vocabulary_size)``.

    Raises:
        UserError: The module is not found, fails, or has no such function.
    """
    place, _, name = path.partition(":")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise _import_error(key, path, error) from error
        raise UserError(
            f"there is no module {error.name}, which {key} = {path!r} names; start "
            "from the folder that it lies in, or add that folder to PYTHONPATH"
        ) from None
    except Exception as error:
        raise _import_error(key, path, error) from error
    found = getattr(module, name, None)
    if not callable(found):
        raise UserError(
            f"the module {_where(module)} has no function {name}, which {key} = {path!r} names; "
            f"define {name}{signature} there"
        )
    return found


def check_home(key: str, path: str, function: Any) -> None:
    """Refuse a function that the module has merely imported and that may not be meant to be called.

    Raises:
        UserError: The function is defined in another package than the path's.
    """
    while isinstance(function, partial):
        function = function.func
    home = str(getattr(function, "__module__", ""))
    if home.partition(".")[0] != path.partition(":")[0].partition(".")[0]:
        raise UserError(
            f"the function that {key} = {path!r} names is defined in {home or '?'}; "
            "name the module that defines it"
        )


def _import_error(key: str, path: str, error: Exception) -> UserError:
    return UserError(f"{key} = {path!r} cannot be imported: {reason(error)}")


def _where(module: ModuleType) -> str:
    return f"{module.__name__} ({module.__file__})" if module.__file__ else module.__name__
