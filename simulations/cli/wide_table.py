"""Tables in a terminal, cut into several below each other where one is too wide."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

_FRAME = 3
"""Characters around a cell: two spaces and a line."""


def print_table(
    console: Console,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    named: int,
) -> None:
    """Print a table without cutting a word.

    Args:
        console: The terminal or file.
        title: The table's title.
        header: Names of the columns.
        rows: A text for each column.
        named: Number of leading columns that name a row; each part of the table repeats them.
    """
    for place, part in enumerate(column_parts(header, rows, named, console.width)):
        whole = 1 + sum(_natural_width(header, rows, column) for column in part) <= console.width
        drawn = Table(title=title if place == 0 else None, title_justify="left")
        for column in part:
            drawn.add_column(
                header[column],
                justify="left" if column == 0 else "right",
                # Rich shrinks columns by their natural widths, and would cut words.
                width=None if whole else _width(header, rows, column) - _FRAME,
                overflow="fold",
            )
        for row in rows:
            # A row that has nothing in a later part is in the first one only.
            if place == 0 or any(row[column] for column in part[named:]):
                drawn.add_row(*(row[column] for column in part))
        console.print(drawn)


def column_parts(
    header: Sequence[str], rows: Sequence[Sequence[str]], named: int, width: int
) -> list[list[int]]:
    """Return the columns of each part, which fits the width if its first further column does."""
    keys = list(range(named))
    base = 1 + sum(_width(header, rows, column) for column in keys)
    parts, used = [keys.copy()], base
    for column in range(named, len(header)):
        wanted = _width(header, rows, column)
        if used + wanted > width and len(parts[-1]) > named:
            parts.append(keys.copy())
            used = base
        parts[-1].append(column)
        used += wanted
    return parts


def _natural_width(header: Sequence[str], rows: Sequence[Sequence[str]], column: int) -> int:
    return _FRAME + max(len(text) for text in [header[column], *(row[column] for row in rows)])


def _width(header: Sequence[str], rows: Sequence[Sequence[str]], column: int) -> int:
    """Return the width that a column needs: its header may be broken between words."""
    words = header[column].split() or [""]
    return _FRAME + max(map(len, [*words, *(row[column] for row in rows)]))
