"""Conversion of table records to rows: choice of columns, and interpretation of cells.

Three more columns are used if they exist: rows with the same ``group`` can be held out together,
``split`` is the corpus's own split, and the label column can be used for re-partitioning.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

from fedsi.data.corpus import Row
from fedsi.data.formats.cells import CellError, id_of, inside, texts_of
from fedsi.data.formats.files import Columns, Part, Place
from fedsi.data.left_out_rows import BAD_TEXT, BAD_VALUE, NO_COLUMN, NO_USER
from fedsi.errors import UserError

GROUP_COLUMN, SPLIT_COLUMN = "group", "split"
USER_COLUMNS = ("user", "user_id", "client_id", "client")
TEXT_COLUMNS = ("text", "tokens", "snippets")
"""Column names tried in this order if the experiment names none."""

_GROUP, _SPLIT = (GROUP_COLUMN,), (SPLIT_COLUMN,)
_Read = TypeVar("_Read")

_SEPARATOR = re.compile(r"[^\w\s.-]")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


class RowMaker:
    """Makes rows from the records of one table.

    Args:
        part: The table; parent folders called ``column=value`` are columns too.
        columns: The columns to read.
    """

    def __init__(self, part: Part, columns: Columns) -> None:
        self._part = part
        self._columns = columns
        self._of_folders = folder_columns(part.name)
        self._user: tuple[str, ...] = ()
        self._text: tuple[str, ...] = ()
        self.in_quotes: tuple[str, ...] = ()
        """The names of the user and text columns as JSON writes them."""

    def fits(self, names: Iterable[str]) -> bool:
        """Whether a table with these columns has a user and a text."""
        there = {*names, *self._of_folders}
        return all(_found(there, candidates) for candidates in self._candidates().values())

    def present(self, names: list[str], place: Place) -> list[str]:
        """Return the needed columns of a table.

        Raises:
            UserError: There is no user or no text column, or a needed one occurs twice.
        """
        self._choose(names, place)
        label = self._columns.label
        wanted = {self._user[0], self._text[0], GROUP_COLUMN, SPLIT_COLUMN}
        wanted |= {_path(label, names)[0]} if label else set()
        needed = [name for name in names if name in wanted]
        twice = next((name for name in needed if needed.count(name) > 1), None)
        if twice is not None:
            raise UserError(
                f"{self._part}, {place.text}: the column {twice!r} is there twice; rename one of "
                "them"
            )
        return needed

    def rows(self, values: Mapping[str, Any], place: Place) -> Iterator[Row]:
        """Yield the record's rows: one, or several if its text is a list of texts.

        Raises:
            UserError: A column is missing in the first record, or holds something that is not text.
        """
        if self._of_folders:
            values = {**self._of_folders, **values}
        if not self._user or self._user[0] not in values or self._text[0] not in values:
            try:
                self._choose(values, place)
            except UserError as error:
                if not self._user:  # in later records, JSON may leave out what is null
                    self._part.left_out.bad(error, NO_COLUMN)
                    return
        try:
            made = self._made(values)
        except CellError as error:
            self._part.left_out.bad(UserError(f"{self._part}, {place.text}: {error}"), BAD_VALUE)
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            self._part.left_out.bad(
                UserError(f"{self._part}, {place.text}: not valid UTF-8 (byte {byte:#04x})"),
                BAD_TEXT,
            )
        else:
            yield from made

    def _made(self, values: Mapping[str, Any]) -> list[Row]:
        user = values.get(self._user[0])
        if type(user) is not str or len(self._user) > 1:
            user = self._cell(values, self._user, id_of)
        if not user:
            self._part.left_out.counts[NO_USER] += 1
            return []
        group = self._cell(values, _GROUP, id_of) if GROUP_COLUMN in values else ""
        split = self._cell(values, _SPLIT, id_of) if SPLIT_COLUMN in values else ""
        named = self._columns.label
        label = self._cell(values, _path(named, values), id_of) if named else ""
        text = values.get(self._text[0])
        if type(text) is str and len(self._text) == 1:
            return [Row(user, group or user, text, split, label)]
        texts = self._cell(values, self._text, texts_of)
        return [Row(user, group or user, text, split, label) for text in texts]

    def _cell(
        self, values: Mapping[str, Any], path: tuple[str, ...], read: Callable[[Any], _Read]
    ) -> _Read:
        value = values.get(path[0])
        try:
            return read(inside(value, path[1:]) if len(path) > 1 else value)
        except CellError as error:
            raise CellError(f"column {'.'.join(path)!r} holds {error}") from None

    def _candidates(self) -> dict[str, tuple[str, ...]]:
        user, text = self._columns.user, self._columns.text
        return {
            "user": (user,) if user else USER_COLUMNS,
            "text": (text,) if text else TEXT_COLUMNS,
        }

    def _choose(self, names: Iterable[str], place: Place) -> None:
        there = dict.fromkeys((*names, *self._of_folders))
        chosen = {}
        for what, candidates in self._candidates().items():
            name = _found(there, candidates)
            if name is None:
                names = sorted(map(str, there))
                listed = ", ".join(n if n == n.strip() else repr(n) for n in names) or "none"
                expected = " or ".join(map(repr, candidates))
                advice = f"name yours with data.{what}_column"
                if len(names) == 1 and _SEPARATOR.search(names[0]):
                    advice = f"if these are several, set data.delimiter; else {advice}"
                raise UserError(
                    f"{self._part}, {place.text}: no column {expected}; columns there: {listed}; "
                    f"{advice}"
                )
            chosen[what] = _path(name, there)
        self._user, self._text = chosen["user"], chosen["text"]
        self.in_quotes = tuple(f'"{path[0]}"' for path in (self._user, self._text))


def folder_columns(name: str) -> dict[str, str | None]:
    """Return the columns in a path's folders, as Spark, pandas and pyarrow write: ``user=ann/``."""
    found: dict[str, str | None] = {}
    for folder in name.split("/")[:-1]:
        key, equals, value = folder.partition("=")
        if key and equals:
            found[key] = None if value == _NO_VALUE else unquote(value)
    return found


def _found(there: Iterable[str], candidates: Iterable[str]) -> str | None:
    """Return the first candidate that is a column or is nested in one."""
    return next((name for name in candidates if _path(name, there)[0] in there), None)


def _path(name: str, there: Iterable[str]) -> tuple[str, ...]:
    """Return the column of a name and the names to look up in it; a column's name may have dots."""
    return (name,) if name in there else tuple(name.split("."))


def no_feature(part: Part, features: Iterable[str], candidates: Iterable[str]) -> UserError:
    """Return the error for a client without any of the features that may hold the text."""
    there = ", ".join(sorted(map(str, features))) or "none"
    return UserError(
        f"{part}: no feature {' or '.join(map(repr, candidates))}; features there: "
        f"{there}; name yours with data.text_column"
    )


def rows_of_client(
    part: Part, place: Place, client: str, values: list[Any], labels: list[Any] | None
) -> Iterator[Row]:
    """Yield the rows of a client whose examples are stored together.

    Args:
        part: The file.
        place: Names the client in error messages.
        client: The client's id.
        values: The text of each example: a string, or a list of tokens.
        labels: The label of each example, or None.

    Raises:
        UserError: An example is not text.
    """
    if not client:
        part.left_out.counts[NO_USER] += len(values)
        return
    for value, label in zip(values, labels or [""] * len(values), strict=True):
        try:
            texts, of_all = texts_of(value), id_of(label)
        except CellError as error:
            problem = UserError(f"{part}, {place.text}: an example is {error}")
            part.left_out.bad(problem, BAD_VALUE)
        else:
            for text in texts:
                yield Row(client, client, text, label=of_all)
