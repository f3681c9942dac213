"""Import paths of the user's own code, ``my_package.my_module:name``, as values of keys."""

import importlib
import sys
from functools import partial
from types import ModuleType
from typing import Any

from fedsi.blame import reason
from fedsi.errors import UserError

EXAMPLE = "my_package.my_module:name"


def check_import_path(key: str, path: str) -> None:
    """Refuse an import path that cannot name anything of the user's.

    Args:
        key: The key of the experiment that has the path as its value.
        path: ``package.module:name``.

    Raises:
        UserError: It is malformed, names the running script, or a module of Python itself.
    """
    module, colon, name = path.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), name)):
        raise UserError(f"{key} = {path!r} is no import path; write it as in {EXAMPLE}")
    if module == "__main__":
        raise UserError(
            f"{key} = {path!r} names the script that is running, which other processes cannot "
            f"import; put {name} into a separate file"
        )
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise UserError(
            f"{key} = {path!r} is not allowed: {module} is a module of Python itself; name one of "
            f"yours, as in {EXAMPLE}"
        )


def load_own(key: str, path: str) -> object:
    """Return the object that an import path names.

    Args:
        key: The key of the experiment that has the path as its value.
        path: ``my_package.my_module:name``.

    Raises:
        UserError: The module is not found, fails, or has no such object.
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
    except (Exception, SystemExit) as error:
        raise _import_error(key, path, error) from error
    found: object = getattr(module, name, None)
    if found is None:
        raise UserError(
            f"the module {_where(module)} has no {name}, which {key} = {path!r} names; define it "
            "there"
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


def _import_error(key: str, path: str, error: BaseException) -> UserError:
    return UserError(f"{key} = {path!r} cannot be imported: {reason(error)}")


def _where(module: ModuleType) -> str:
    return f"{module.__name__} ({module.__file__})" if module.__file__ else module.__name__
