"""Rows of a corpus that do not reach its population, counted by reason."""

from collections import Counter
from dataclasses import dataclass, field

from fedsi.errors import UserError

NO_USER, NO_TEXT, NO_WORDS = "without a user", "without text", "without words"
BAD_JSON, BAD_CSV, BAD_TEXT = "not valid JSON", "not valid CSV", "not valid UTF-8"
TOO_FEW, TOO_MANY = "with too few fields", "with too many fields"
BAD_VALUE = "with a value that is not text"
NO_COLUMN = "without the columns"
NO_MESSAGE = "of the chat program, not of a person"


@dataclass
class LeftOut:
    """What one reading of a corpus leaves out.

    Args:
        skip_bad: Whether rows that are not well-formed are left out, not refused.
    """

    skip_bad: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    """Rows by reason."""

    def bad(self, error: UserError, reason: str, rows: int = 1) -> None:
        """Count rows that are not well-formed.

        Raises:
            UserError: They are to be refused; ``error`` with what to do about it.
        """
        if not self.skip_bad:
            raise UserError(
                f"{error}; data.bad_rows=skip leaves such rows out and counts them"
            ) from None
        self.counts[reason] += rows
