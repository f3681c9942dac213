"""A lock that lets one process at a time work in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fedsi.errors import UserError
from fedsi.files import cannot_write

_LOCK = ".lock"


@contextmanager
def held(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Lock a folder within this context, creating it if necessary.

    The lock belongs to the process: the system releases it however the process ends. A thread that
    holds a folder may lock it again. A folder that was created here and is still empty at the end
    is removed.

    Args:
        folder: The folder of a run or of a study.
        wait: Seconds to wait for another process to release it.

    Raises:
        UserError: Another process works in the folder, or it cannot be written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.resolve() / _LOCK, is_singleton=True)
        lock.acquire(timeout=wait)
    except Timeout:
        raise UserError(
            f"{folder} is in use by another process of fedsi; wait until that has ended, or name "
            "another folder with --out"
        ) from None
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            # Unlinked while it is held, so that a process waiting for this file sees that it is
            # gone.
            (folder / _LOCK).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            for path in made:
                path.rmdir()
