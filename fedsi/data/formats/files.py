"""Opening of compressed and archived files, with every error turned into one sentence."""

import bz2
import gzip
import io
import lzma
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import IO, Any

from fedsi.data.left_out_rows import BAD_TEXT, LeftOut
from fedsi.errors import UserError
from fedsi.extras import optional
from fedsi.files import LOOKED_AT, encoding_of


@dataclass(frozen=True)
class Part:
    """One file of a corpus.

    Args:
        path: Its path; an uncompressed copy if the reader needs random access.
        name: Its path inside the corpus's folder or archive, or its file name.
        left_out: Counter of rows that are left out.
        member: Its name in the archive ``path``; empty if it is not in an archive.
        shown: Its name in messages; empty for its path.
    """

    path: Path
    name: str
    left_out: LeftOut = field(default_factory=LeftOut, compare=False)
    member: str = ""
    shown: str = ""

    def __str__(self) -> str:
        return self.shown or (f"{self.path} ({self.member})" if self.member else str(self.path))

    @property
    def file_name(self) -> str:
        """The name whose suffix gives the compression."""
        return self.member or self.path.name


@dataclass(frozen=True)
class Columns:
    """Names of the columns to read; None for the format's usual names."""

    user: str | None = None
    text: str | None = None
    label: str | None = None
    delimiter: str | None = None


@dataclass
class Place:
    """The position of a reader, for its error messages."""

    what: str = "the beginning"
    number: int = 0
    """From 1; 0 if nothing is counted. The text is formatted only when needed."""
    skippable: bool = False
    """Whether ``data.bad_rows`` can leave out what is at this position."""

    @property
    def text(self) -> str:
        """The place in words."""
        return f"{self.what} {self.number}" if self.number else self.what

    @text.setter
    def text(self, words: str) -> None:
        self.what, self.number = words, 0


class _ZstandardFile(io.RawIOBase):
    """The content of a zstandard file.

    The package's own readers treat the end of the file as the end of the content, even inside a
    frame. Here that is an error, as for the other compressions.

    Args:
        decompressor: A ``zstandard.ZstdDecompressor``.
        file: The compressed file.
    """

    def __init__(self, decompressor: Any, file: IO[bytes]) -> None:
        self._decompressor = decompressor
        self._file = file
        self._frame: Any = None
        self._content = io.BytesIO()

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read as many bytes as fit; 0 at the end.

        Raises:
            EOFError: The file ends inside a frame.
        """
        while not (size := self._content.readinto(buffer)):
            left = self._frame.unused_data if self._frame else b""
            packed = left or self._file.read(_PACKED_CHUNK)
            if self._frame is None or self._frame.eof:
                if not packed:
                    return 0
                self._frame = self._decompressor.decompressobj()
            elif not packed:
                raise EOFError("the file ends in the middle of its content")
            self._content = io.BytesIO(self._frame.decompress(packed))
        return size


_LARGEST_WINDOW = 1 << 31
"""Window in bytes of ``zstd --long=31``, used for example by the dumps of Reddit."""


def _open_zstandard(file: IO[bytes]) -> IO[bytes]:
    package = optional("zstandard", "zstandard")
    decompressor = package.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    return io.BufferedReader(_ZstandardFile(decompressor, file))


_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".lzma": lzma.open,
    ".bz2": bz2.open,
    ".zst": _open_zstandard,
}
COMPRESSIONS = tuple(_OPENERS)

_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_HEAD = 1 << 16
_CHUNK = 1 << 20
_PACKED_CHUNK = 1 << 14
"""Compressed bytes read at a time; they may expand a thousandfold."""


def plain_name(name: str) -> str:
    """Return a file's name in lower case without a compression suffix."""
    lower = name.lower()
    ending = next((ending for ending in COMPRESSIONS if lower.endswith(ending)), "")
    return lower.removesuffix(ending)


def is_packed(part: Part) -> bool:
    """Whether a file is compressed or in an archive."""
    return bool(part.member) or part.path.name.lower().endswith(COMPRESSIONS)


@contextmanager
def open_bytes(part: Part) -> Iterator[IO[bytes]]:
    """Open a file's uncompressed content for reading."""
    opener = _OPENERS.get(PurePath(part.file_name).suffix.lower())
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(part.path.open("rb"))
        if part.member:
            archive = stack.enter_context(zipfile.ZipFile(file))
            file = stack.enter_context(archive.open(part.member))
        yield stack.enter_context(opener(file)) if opener else file


@contextmanager
def open_text(part: Part) -> Iterator[IO[str]]:
    """Open a file's text for reading, in any encoding that ``encoding_of`` recognises."""
    errors = "surrogateescape" if part.left_out.skip_bad else "strict"
    with open_bytes(part) as content:
        file: Any = content  # all kinds of it can peek, which their types do not say
        encoding = encoding_of(file.peek(LOOKED_AT))
        with io.TextIOWrapper(content, encoding=encoding, errors=errors, newline="") as text:
            yield text


def lines_of(part: Part, place: Place) -> Generator[str, None, None]:
    """Yield a file's lines, without those that are not UTF-8 if bad rows are left out."""
    place.skippable, skip = True, part.left_out.skip_bad
    with open_text(part) as file:
        for place.number, line in enumerate(file, start=1):
            place.what = "line"  # until there is one, the fault lies at the beginning
            if skip and not line.isascii() and _NOT_UTF8.search(line):
                part.left_out.counts[BAD_TEXT] += 1
            else:
                yield line


def head_of(part: Part) -> str:
    """Return the first characters of a file, or an empty text if it cannot be read."""
    try:
        with open_bytes(part) as content:
            head = content.read(_HEAD)
            return head.decode(encoding_of(head), "replace")
    except Exception:  # its reader will say what is wrong with it
        return ""


def unpack(part: Part, target: Path) -> None:
    """Write the uncompressed content of a file to ``target``.

    Raises:
        UserError: The file is damaged, or the disk is full.
    """
    with faults(part, Place("unpacking it")), open_bytes(part) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, _CHUNK)


@contextmanager
def faults(part: Part, place: Place) -> Iterator[None]:
    """Turn errors from reading a bad file into one sentence.

    Raises:
        UserError: Replaces the many exceptions of the readers.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        skip = ", or leave such lines out with data.bad_rows=skip" if place.skippable else ""
        where = _first_bad_line(part) if place.skippable else place.text
        raise UserError(
            f"{part} is not valid {error.encoding.upper()} (at {where}: byte "
            f"{error.object[error.start]:#04x}); convert the file to UTF-8{skip}"
        ) from None
    except UserError:
        raise
    except Exception as error:  # the parsers of several packages raise arbitrary types
        if isinstance(error, OSError) and error.errno:
            reason = os.strerror(error.errno)
            raise UserError(f"cannot read the corpus {part} at {place.text}: {reason}") from None
        raise _damaged(part, place, error) from None


def _first_bad_line(part: Part) -> str:
    """Return the place of the first line that cannot be decoded; decoders read far ahead of it."""
    lenient, number = replace(part, left_out=LeftOut(skip_bad=True)), 1
    with suppress(UnicodeError), open_text(lenient) as file:
        for number, line in enumerate(file, start=1):  # noqa: B007
            if _NOT_UTF8.search(line):
                break
    return f"line {number}"


def _damaged(part: Part, place: Place, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(
        f"{part} is damaged, or not what its name says (at {place.text}: {reason}); "
        "fetch the file again, or name its kind with data.format"
    )
