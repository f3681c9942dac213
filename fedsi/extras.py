"""Packages that only some features need, each installed by an extra of fedsi."""

import importlib
import importlib.util
from typing import Any

from fedsi.errors import UserError


def optional(module: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        UserError: It is not installed; names the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise _missing(module, extra) from None


def check_installed(module: str, extra: str) -> None:
    """Refuse to go on without an optional package, which is not imported yet.

    Raises:
        UserError: Same as ``optional``.
    """
    if importlib.util.find_spec(module) is None:
        raise _missing(module, extra)


def _missing(module: str, extra: str) -> UserError:
    return UserError(
        f"the package {module.partition('.')[0]} is needed here and is not installed; install "
        f"it with: pip install 'fedsi[{extra}]'"
    )
