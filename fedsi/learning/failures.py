"""The log of failing clients: one line for a block, however many of its clients failed."""

import logging

log = logging.getLogger(__name__)


def described(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


class FailureLog:
    """Collects the failing clients of a block, and then logs them in one line.

    The first line includes a traceback, for the author of the model. Later ones have theirs at
    debug level.
    """

    def __init__(self) -> None:
        self._first: tuple[int, BaseException] | None = None
        self._failed = 0
        self._traceback_shown = False

    def add(self, client: int, error: BaseException) -> None:
        """Record that a client failed."""
        self._failed += 1
        self._first = self._first or (client, error)
        log.debug("client %d failed", client, exc_info=error)

    def tell(self, what: str, clients: int) -> None:
        """Log the failures recorded since the last call.

        Args:
            what: What happened to a failed client, for example ``failed in round 3``.
            clients: Number of clients of the block.
        """
        if self._first is None:
            return
        client, error = self._first
        more = f" ({self._failed} of {clients} clients did)" if self._failed > 1 else ""
        shown = None if self._traceback_shown else error
        log.warning("client %d %s: %s%s", client, what, described(error), more, exc_info=shown)
        self._first, self._failed, self._traceback_shown = None, 0, True
