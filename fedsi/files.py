"""Atomic writing of files, reading of text files, and hashes of content."""

import codecs
import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from fedsi.errors import UserError

LARGEST_TEXT = 1 << 30
"""Largest size in bytes of a word list, a tokenizer or a trace."""
LOOKED_AT = 4
"""Bytes of a text's beginning that ``encoding_of`` needs."""
_WITHOUT_MARK: dict[tuple[bool, ...], str] = {
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
EVERYBODY, OWNER = 0o644, 0o600
"""Permissions of files that everybody may read, and of files that only their owner may read."""


def write_atomically(path: Path, content: bytes, mode: int = EVERYBODY) -> None:
    """Write ``content`` to a temporary file beside ``path`` and rename it into place.

    Args:
        path: The file.
        content: Its whole content.
        mode: Its permissions; only the owner can read the temporary file.

    Raises:
        UserError: The file cannot be written (full disk, no permission). An existing file at
            ``path`` is unchanged, and no partial file remains.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def make_folder(path: Path) -> None:
    """Create a folder and its parents, if they do not exist.

    Raises:
        UserError: The folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return the error for a file that could not be written."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    advice = "free some space or name another folder" if full else "name another folder"
    return UserError(f"cannot write {path}: {reason}; {advice}")


def read_text(path: Path, most_bytes: int = LARGEST_TEXT) -> str:
    """Return a text that a person may have written, with line feeds as line ends.

    Args:
        path: A regular file, because a device or a pipe may never end.
        most_bytes: Size limit; a larger file is refused before it is read.

    Raises:
        OSError: The file cannot be read, is not a regular file, or is too large.
        UnicodeDecodeError: Its encoding is none that ``encoding_of`` recognises.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file", str(path))
    if facts.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes", str(path))
    with path.open("rb") as file:
        encoding = encoding_of(file.read(LOOKED_AT))
    return path.read_text(encoding=encoding)


def encoding_of(first_bytes: bytes) -> str:
    """Return the encoding of a text: UTF-32 or UTF-16 by its first bytes, otherwise UTF-8.

    Each encoding strips the byte order mark, which Windows programs write in UTF-8 too. Without
    one, UTF-16 is recognised by the zero byte beside the first character, if that is ASCII.

    Args:
        first_bytes: The first ``LOOKED_AT`` bytes, or more.
    """
    first = first_bytes[:LOOKED_AT]
    if first in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32"
    if first[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    zeros = tuple(byte == 0 for byte in first)
    return _WITHOUT_MARK.get(zeros, "utf-8-sig")


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
