"""Hashes of a corpus's files and of its clients' encoded text.

Hashes of large files are cached.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsi.checksums import sealed, unsealed
from fedsi.data.corpus import Progress
from fedsi.files import write_atomically

_CHUNK = 1 << 24
_SHA256 = "sha256"
_REMEMBERED = 1 << 26
"""Size in bytes from which a file's hash is cached."""

_SETTLED_SECONDS = 2.0
"""Age in seconds of a change below which a file may change again within its time stamp's
resolution."""


@dataclass
class ContentDigest:
    """Order-independent digest of encoded clients: the sum of their SHA-256, modulo 2^256."""

    total: int = 0

    def add(self, name: str, lengths: NDArray[np.int64], tokens: NDArray[np.int32]) -> None:
        """Add a client.

        Args:
            name: The client's id in the corpus.
            lengths: Number of tokens of each sentence, ``[sentences]``.
            tokens: Tokens of all sentences, concatenated, ``[tokens]``.
        """
        named = name.encode("utf-8", "surrogatepass")
        client = hashlib.sha256(f"{len(named)} {len(lengths)} ".encode() + named)
        client.update(lengths.astype("<i8").tobytes())
        client.update(tokens.astype("<i4").tobytes())
        self.total = (self.total + int.from_bytes(client.digest(), "big")) % (1 << 256)

    def hexdigest(self) -> str:
        """Return the digest of the clients added so far, in hexadecimal."""
        return f"{self.total:064x}"


def content_sha256(
    path: Path, files: Sequence[Path], cache: Path | None, progress: Progress
) -> str:
    """Return the SHA-256 of a file's bytes, or of the names and hashes of a folder's files.

    Args:
        path: A file or folder.
        files: The file, or the relevant files of the folder in a fixed order.
        cache: Folder in which hashes of large files are cached by path, size and time stamp.
        progress: Called with the number of megabytes done.

    Raises:
        OSError: A file cannot be read.
    """
    if list(files) == [path]:
        return _remembered(path, cache, progress)
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(path) if file.is_relative_to(path) else Path(file.name)
        digest.update(json.dumps(name.as_posix()).encode())
        digest.update(_remembered(file, cache, progress).encode())
    return digest.hexdigest()


def _remembered(path: Path, cache: Path | None, progress: Progress) -> str:
    facts = path.stat()
    if cache is None or facts.st_size < _REMEMBERED:
        return _hash(path, facts.st_size, progress)
    settled = time.time() - facts.st_mtime > _SETTLED_SECONDS
    key = json.dumps([str(path.resolve()), facts.st_size, facts.st_mtime_ns, facts.st_ino])
    memory = cache / "hashes" / hashlib.sha256(key.encode()).hexdigest()[:24]
    try:
        return str(unsealed(memory.read_bytes())[_SHA256])
    except (OSError, ValueError, KeyError):
        sha256 = _hash(path, facts.st_size, progress)
    if settled:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, sealed({_SHA256: sha256}))
    return sha256


def _hash(path: Path, size: int, progress: Progress) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for done in range(0, max(size, 1), _CHUNK):
            digest.update(file.read(_CHUNK))
            if size >= _REMEMBERED:
                progress(f"checking {path.name} (MB)", (done + _CHUNK) >> 20, size >> 20)
        while more := file.read(_CHUNK):  # the file has grown
            digest.update(more)
    return digest.hexdigest()
