"""The table of corpus formats."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fedsi.data.corpus import Row
from fedsi.data.formats import (
    by_user,
    chat,
    delimited,
    fedjax_sqlite,
    hugging_face,
    leaf,
    tabular,
    text,
    tff_hdf5,
    tff_sqlite,
)
from fedsi.data.formats.files import Columns, Part


@dataclass(frozen=True)
class Format:
    """A file format of corpora.

    Args:
        suffixes: Suffixes of its files, without compression.
        read: Yields the rows of one file.
        random_access: Whether a compressed file must be unpacked before it is read.
        table: Name of a table by which its databases are recognised.
        also: Suffixes of other formats that its files may have.
        begins: Recognises its files with such suffixes by their first characters.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Part, Columns], Iterator[Row]]
    random_access: bool = False
    table: str | None = None
    also: tuple[str, ...] = ()
    begins: Callable[[str], bool] | None = None


_DATABASES = (".sqlite", ".sqlite3", ".db")
_JSON = (".json",)

FORMATS = {
    "jsonl": Format((".jsonl", ".ndjson"), tabular.read_jsonl, also=_JSON, begins=tabular.is_jsonl),
    "csv": Format((".csv", ".tsv", ".tab"), delimited.read_csv),
    "parquet": Format((".parquet",), tabular.read_parquet, random_access=True),
    "arrow": Format((".arrow", ".feather"), tabular.read_arrow, random_access=True),
    "leaf": Format(_JSON, leaf.read_leaf),
    "json": Format((), tabular.read_json, also=_JSON, begins=tabular.is_json_array),
    "tff_hdf5": Format((".h5", ".hdf5"), tff_hdf5.read_tff_hdf5, random_access=True),
    "tff_sqlite": Format(
        _DATABASES, tff_sqlite.read_tff_sqlite, random_access=True, table=tff_sqlite.EXAMPLES
    ),
    "fedjax_sqlite": Format(
        _DATABASES, fedjax_sqlite.read_fedjax_sqlite, random_access=True, table=fedjax_sqlite.TABLE
    ),
    "text": Format(text.SUFFIXES, text.read_text_file),
    "chat": Format((), chat.read_chat, also=(*text.SUFFIXES, *_JSON), begins=chat.is_chat),
    "by_user": Format((), by_user.read_by_user, also=_JSON, begins=by_user.is_by_user),
    "hugging_face": Format((), hugging_face.read_hugging_face),
}
"""A new format is a module with a reader, and one line here."""
