"""Rows of a corpus that are left out of its population, counted by reason."""

from collections import Counter
from dataclasses import dataclass, field

from fedsi.errors import UserError

NO_USER, NO_TEXT, NO_WORDS = "without a user", "without text", "without words"
BAD_JSON, BAD_CSV, BAD_TEXT = "not valid JSON", "not valid CSV", "not valid UTF-8"
TOO_FEW, TOO_MANY = "with too few fields", "with too many fields"
BAD_VALUE = "with a value that is not text"
NO_COLUMN = "without the columns"
NO_LABEL = "without one of the labels"
NO_MESSAGE = "of the chat program, not of a person"


@dataclass
class LeftOut:
    """Rows left out by one reading of a corpus.

    Args:
        skip_bad: Whether malformed rows are left out instead of refused.
    """

    skip_bad: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    """Number of rows by reason."""

    def bad(self, error: UserError, reason: str, rows: int = 1) -> None:
        """Count malformed rows.

        Raises:
            UserError: Such rows are refused; ``error`` with what to do about it.
        """
        if not self.skip_bad:
            raise UserError(
                f"{error}; data.bad_rows=skip leaves such rows out and counts them"
            ) from None
        self.counts[reason] += rows
