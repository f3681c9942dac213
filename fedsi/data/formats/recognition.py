"""Recognition of a corpus's format and of the files to read."""

import re
import sqlite3
from pathlib import Path

from fedsi.data.formats import hugging_face, tff_sqlite
from fedsi.data.formats.files import Part, head_of, is_packed, plain_name
from fedsi.data.formats.table import FORMATS
from fedsi.errors import UserError

AUTO = "auto"

_EXPLANATION = re.compile(r"(readme|licen[cs]e|notice|citation|changelog).*|.*\.md", re.IGNORECASE)


def recognise(path: Path, parts: list[Part]) -> tuple[str, list[Part]]:
    """Return the format of a file or folder and its files, from their names and beginnings.

    Raises:
        UserError: No format, or more than one, is possible; or a file exists twice.
    """
    if path.is_dir() and any((path / marker).exists() for marker in hugging_face.MARKERS):
        return "hugging_face", parts
    if not parts:
        raise UserError(f"there is no file of data in {path}; name another corpus")
    by_kind = _by_kind([p for p in parts if not _explains(p)]) or _by_kind(parts)
    if len(by_kind) == 1:
        kind, found = by_kind.popitem()
        return kind, _different(found)
    found_kinds = f"it could be {' or '.join(sorted(by_kind))}" if by_kind else "no known ending"
    raise UserError(
        f"cannot tell the format of {path} ({found_kinds}); name it with data.format, one of "
        f"{known_formats()}"
    )


def parts_of_kind(kind: str, parts: list[Part]) -> list[Part]:
    """Return the files of a given format.

    They are the files with its suffixes; if there are none, those with suffixes that its files may
    also have; if there are none, all files but explanations such as a README.

    Raises:
        UserError: A file exists twice.
    """
    form = FORMATS[kind]
    if len(parts) == 1 or kind == "hugging_face":
        return parts
    for endings in (form.suffixes, form.also):
        named = [part for part in parts if plain_name(part.name).endswith(endings)]
        if endings and named:
            return _different(named)
    return _different([p for p in parts if not _explains(p)])


def known_formats() -> str:
    """Return the names of all formats, as a list for a sentence."""
    return ", ".join(FORMATS)


def _by_kind(parts: list[Part]) -> dict[str, list[Part]]:
    found: dict[str, list[Part]] = {}
    for part in parts:
        if kind := _format_of(part):
            found.setdefault(kind, []).append(part)
    return found


def _explains(part: Part) -> bool:
    return _EXPLANATION.fullmatch(Path(part.name).name) is not None


def _different(parts: list[Part]) -> list[Part]:
    """Return the files.

    Raises:
        UserError: A file is beside its compressed copy, or beside an archive.
    """
    seen: dict[str, Part] = {}
    for part in parts:
        other = seen.setdefault(plain_name(part.name), part)
        if other is not part:
            raise UserError(f"{other} and {part} may be copies of each other; remove one of them")
    packed = {bool(part.member): part for part in parts}
    if len(packed) == 2:
        raise UserError(
            f"the archive {packed[True].path} lies beside files such as {packed[False]}; remove "
            "it if it holds the same, else unpack it"
        )
    return parts


def _format_of(part: Part) -> str | None:
    name = plain_name(part.name)
    own = [kind for kind, form in FORMATS.items() if name.endswith(form.suffixes)]
    others = [kind for kind, form in FORMATS.items() if name.endswith(form.also)]
    if others:
        head = head_of(part)
        tests = ((kind, FORMATS[kind].begins) for kind in others)
        found = next((kind for kind, begins in tests if begins and begins(head)), None)
        return found or next(iter(own), None)
    if len(own) < 2 or is_packed(part):
        return next(iter(own), None)
    present = _tables(part.path)
    return next((kind for kind in own if FORMATS[kind].table in present), own[0])


def _tables(file: Path) -> set[str]:
    """Return the tables of a database; none if it is damaged, which its reader reports."""
    try:
        with tff_sqlite.open_sqlite(file) as connection:
            return tff_sqlite.tables_of(connection)
    except (sqlite3.Error, UnicodeDecodeError):
        return set()
