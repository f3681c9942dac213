"""Tables in a terminal, cut into several below each other where one is too wide.

No other module draws tables, so no command cuts a word or leaves out a column.
"""

from collections.abc import Collection, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from simulations.safe_text import visible

_FRAME = 3
"""Characters around a cell: two spaces and a line."""
_PROSE = 18
"""Characters that a column of sentences gets at least, if its texts have as many."""


def print_facts(console: Console, title: str, facts: Mapping[str, str]) -> None:
    """Print labels and their values, which are wrapped where they are too long.

    Args:
        console: The terminal or file.
        title: The table's title; may be empty.
        facts: Values by label.
    """
    drawn = Table(title=title or None, title_justify="left", show_header=False)
    for _ in range(2):
        drawn.add_column(overflow="fold")
    for label, value in facts.items():
        drawn.add_row(label, value)
    console.print(drawn)


def print_table(
    console: Console,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    named: int = 1,
    prose: Collection[str] = (),
) -> None:
    """Print a table without cutting a word.

    Args:
        console: The terminal or file.
        title: The table's title.
        header: Names of the columns.
        rows: A text for each column.
        named: Number of leading columns that name a row; each part of the table repeats them.
        prose: Names of columns of words, which are wrapped between words and start at the left.
    """
    header, rows = _visible(header), [_visible(row) for row in rows]
    least = [_least(header, rows, column, prose) for column in range(len(header))]
    for place, part in enumerate(column_parts(least, named, console.width)):
        widths = _widths(header, rows, part, least, prose, console.width)
        drawn = Table(title=title if place == 0 else None, title_justify="left")
        for column in part:
            left = column == 0 or header[column] in prose
            drawn.add_column(
                header[column],
                justify="left" if left else "right",
                # Rich shrinks columns by their natural widths, and would cut words.
                width=widths[column] - _FRAME,
                overflow="fold",
            )
        # A row that has nothing in a later part is in the first one only.
        shown = [row for row in rows if place == 0 or any(row[column] for column in part[named:])]
        for row in shown:
            drawn.add_row(*(row[column] for column in part))
        if shown or place == 0:
            console.print(drawn)


def column_parts(least: Sequence[int], named: int, width: int) -> list[list[int]]:
    """Return the columns of each part, which fits the width if its first further column does.

    Args:
        least: The width that each column needs.
        named: Number of leading columns that each part repeats.
        width: The terminal's width.
    """
    keys = list(range(named))
    base = 1 + sum(least[:named])
    parts, used = [keys.copy()], base
    for column in range(named, len(least)):
        if used + least[column] > width and len(parts[-1]) > named:
            parts.append(keys.copy())
            used = base
        parts[-1].append(column)
        used += least[column]
    return parts


def _widths(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    part: Sequence[int],
    least: Sequence[int],
    prose: Collection[str],
    width: int,
) -> dict[int, int]:
    """Return the widths of a part's columns: what they need, and then what they would like.

    Columns of numbers come first, so that their headers stay on one line where there is room.
    """
    found = {column: least[column] for column in part}
    spare = max(0, width - 1 - sum(found.values()))
    for column in sorted(part, key=lambda one: header[one] in prose):
        liked = _FRAME + max(map(cell_len, _texts(header, rows, column)))
        more = min(spare, liked - found[column])
        found[column] += more
        spare -= more
    return found


def _visible(texts: Sequence[str]) -> list[str]:
    """Return texts as they will be printed, so that their widths are right."""
    return list(map(visible, texts))


def _texts(header: Sequence[str], rows: Sequence[Sequence[str]], column: int) -> list[str]:
    return [header[column], *(row[column] for row in rows)]


def _least(
    header: Sequence[str], rows: Sequence[Sequence[str]], column: int, prose: Collection[str]
) -> int:
    """Return the width that a column needs: only its header and prose may be broken into words."""
    words = header[column].split() or [""]
    longest = max(map(cell_len, _texts(header, rows, column)))
    if header[column] in prose:
        return _FRAME + min(longest, max(_PROSE, *map(cell_len, words)))
    return _FRAME + max(map(cell_len, [*words, *(row[column] for row in rows)]))
