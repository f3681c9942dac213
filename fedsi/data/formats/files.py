"""Opening files of any compression, and turning every fault of one into one sentence."""

import bz2
import csv
import gzip
import importlib
import io
import lzma
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fedsi.data.left_out import LeftOut
from fedsi.errors import UserError
from fedsi.files import encoding_of


@dataclass(frozen=True)
class Part:
    """One file of a corpus.

    Args:
        path: Where it is; a copy without compression if the reader needs random access.
        name: What to call it: its path inside the corpus's folder, or its own name.
        left_out: Where rows that are left out are counted.
    """

    path: Path
    name: str
    left_out: LeftOut = field(default_factory=LeftOut, compare=False)


@dataclass(frozen=True)
class Columns:
    """Names of the columns to read; None for the usual ones of the format."""

    user: str | None = None
    text: str | None = None
    label: str | None = None


@dataclass
class Place:
    """How far a reader has come, for its error messages."""

    text: str = "the beginning"


def optional(module: str, extra: str) -> Any:
    """Import a package that not everybody needs.

    Raises:
        UserError: It is not installed; the extra that brings it is named.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"the package {module.partition('.')[0]} is needed here and is not installed; install "
            f"it with: pip install 'fedsi[{extra}]'"
        ) from None


class _ZstandardFile(io.RawIOBase):
    """The content of a zstandard file.

    The package's own readers take the end of the file for the end of the content, even if it comes
    in the middle of a frame; here that is an error, as for the other compressions.

    Args:
        decompressor: A ``zstandard.ZstdDecompressor``.
        file: What is compressed.
    """

    def __init__(self, decompressor: Any, file: IO[bytes]) -> None:
        self._decompressor = decompressor
        self._file = file
        self._frame: Any = None
        self._content = io.BytesIO()

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()

    def readinto(self, buffer: Any, /) -> int:
        """Read as much as fits, nothing at the end.

        Raises:
            EOFError: The file ends in the middle of a frame.
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


def _open_zstandard(path: Path) -> IO[bytes]:
    decompressor = optional("zstandard", "zstandard").ZstdDecompressor()
    return io.BufferedReader(_ZstandardFile(decompressor, path.open("rb")))


_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".lzma": lzma.open,
    ".bz2": bz2.open,
    ".zst": _open_zstandard,
}
COMPRESSIONS = tuple(_OPENERS)

_CHUNK = 1 << 20
_PACKED_CHUNK = 1 << 14
"""Bytes; they may become thousands of times as many."""


def plain_name(name: str) -> str:
    """Return a file's name in lower case without the ending of a compression."""
    lower = name.lower()
    ending = next((ending for ending in COMPRESSIONS if lower.endswith(ending)), "")
    return lower.removesuffix(ending)


def is_compressed(name: str) -> bool:
    """Whether a file's name has the ending of a compression."""
    return name.lower().endswith(COMPRESSIONS)


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading its content without compression."""
    opener = _OPENERS.get(path.suffix.lower())
    file: IO[bytes] = opener(path) if opener else path.open("rb")
    return file


def open_text(path: Path) -> IO[str]:
    """Open a file for reading its text: UTF-8, or UTF-16 with a byte order mark."""
    file: Any = open_bytes(path)  # all kinds of it can peek, which their types do not say
    try:
        encoding = encoding_of(file.peek(2))
    except BaseException:
        file.close()
        raise
    return io.TextIOWrapper(file, encoding=encoding, newline="")


def unpack(path: Path, target: Path) -> None:
    """Write a compressed file's content to ``target``.

    Raises:
        UserError: The file is damaged, or the disk is full.
    """
    with faults(path, Place("unpacking it")), open_bytes(path) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, _CHUNK)


@contextmanager
def faults(path: Path, place: Place) -> Iterator[None]:
    """Turn what reading a bad file raises into one sentence.

    Raises:
        UserError: In place of the readers' many exceptions.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not valid {error.encoding.upper()} (at {place.text}: byte "
            f"{error.object[error.start]:#04x}); convert the file to UTF-8"
        ) from None
    except csv.Error as error:
        raise UserError(f"{path}, at {place.text}: not valid CSV: {error}") from None
    except UserError:
        raise
    except Exception as error:  # the parsers of half a dozen packages raise what they like
        if isinstance(error, OSError) and error.errno:
            reason = os.strerror(error.errno)
            raise UserError(f"cannot read the corpus {path} at {place.text}: {reason}") from None
        raise _damaged(path, place, error) from None


def _damaged(path: Path, place: Place, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(
        f"{path} is damaged, or not what its name says (at {place.text}: {reason}); "
        "fetch the file again, or name its kind with data.format"
    )
