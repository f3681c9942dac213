"""The folder for prepared corpora."""

from pathlib import Path

from fedsi.errors import UserError

DEFAULT_CACHE = Path("~/.cache/fedsi")
"""Used where no folder is named."""


def cache_folder(cache: Path) -> Path:
    """Return the folder that a path means, with ``~`` as the home folder.

    Raises:
        UserError: The person has no home folder, as in a container under a user id of its own.
    """
    try:
        return cache.expanduser()
    except RuntimeError:
        raise UserError(
            f"there is no home folder for the cache {cache}; name another with --cache, or set HOME"
        ) from None
