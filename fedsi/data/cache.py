"""The cache folder for prepared corpora."""

from pathlib import Path

from fedsi.errors import UserError

DEFAULT_CACHE = Path("~/.cache/fedsi")
"""Default cache folder."""


def cache_folder(cache: Path) -> Path:
    """Return the cache folder of a path, with ``~`` expanded to the home folder.

    Raises:
        UserError: The user has no home folder, as in a container with an unknown user id.
    """
    try:
        return cache.expanduser()
    except RuntimeError:
        raise UserError(
            f"there is no home folder for the cache {cache}; name another with --cache, or set HOME"
        ) from None
