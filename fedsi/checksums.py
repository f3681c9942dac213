"""Checksums of a folder's files, so that damaged files are refused.

``checksums.json`` holds the SHA-256 of each small file, which is read whole. For each large array,
which is memory-mapped, it holds the CRC-32 of every 64 KiB, checked when that chunk is first
accessed. This protects against damage, not against malice: anyone who can change a file can change
its checksum.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from fedsi.errors import DamagedError
from fedsi.files import write_atomically

CHECKSUMS = "checksums.json"
_SEAL = "checksum"
CHUNK = 1 << 16
"""Bytes per checksum; small enough that a client's few kilobytes do not require reading a
megabyte."""


@dataclass(frozen=True)
class Checksums:
    """The checksums of one folder's files, by name."""

    whole: dict[str, str] = field(default_factory=dict)
    """SHA-256, in hexadecimal."""
    chunks: dict[str, str] = field(default_factory=dict)
    """CRC-32 of each chunk: eight hexadecimal digits each, concatenated."""

    def write(self, folder: Path) -> None:
        """Write ``checksums.json``, which carries a checksum of itself."""
        content = {"sha256": _sha256_of(vars(self)), **vars(self)}
        write_atomically(folder / CHECKSUMS, (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path, advice: str) -> "Checksums":
        """Read the checksums of a folder.

        Args:
            folder: The folder.
            advice: What to do about damage, as the end of the sentence.

        Raises:
            DamagedError: The file is missing or damaged.
        """
        path = folder / CHECKSUMS
        try:
            content = json.loads(path.read_bytes())
            expected = content.pop("sha256")
            sums = cls(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"cannot read {path}: {_reason(error)}; {advice}") from None
        if _sha256_of(vars(sums)) != expected:
            raise DamagedError(f"{path} is damaged; {advice}")
        return sums

    def with_whole(self, more: Mapping[str, str]) -> "Checksums":
        """Return the checksums with those of more small files added or replaced."""
        return Checksums({**self.whole, **more}, self.chunks)

    def without(self, name: str) -> "Checksums":
        """Return the checksums without that of a small file."""
        return Checksums({k: v for k, v in self.whole.items() if k != name}, self.chunks)

    def read_file(self, path: Path, advice: str) -> bytes:
        """Return the content of a small file.

        Raises:
            DamagedError: It is missing, or does not match its checksum.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DamagedError(f"cannot read {path}: {error.strerror}; {advice}") from None
        if hashlib.sha256(content).hexdigest() != self.whole.get(path.name):
            raise DamagedError(
                f"{path} is damaged: its SHA-256 is not that of {CHECKSUMS}; {advice}"
            )
        return content

    def map_array(self, path: Path, advice: str) -> "CheckedArray":
        """Map a large array into memory.

        Raises:
            DamagedError: It is missing, or its size or shape is not as written.
        """
        try:
            return CheckedArray(path, bytes.fromhex(self.chunks[path.name]), advice)
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise DamagedError(f"{path} is damaged ({_reason(error)}); {advice}") from None


class CheckedArray:
    """A memory-mapped, read-only array; each chunk is checked when it is first accessed.

    Args:
        path: A ``.npy`` file of one dimension.
        sums: The big-endian CRC-32 of each chunk.
        advice: What to do about damage, as the end of the sentence.

    Raises:
        ValueError: The size of the file is not as written, or its header is damaged.
    """

    def __init__(self, path: Path, sums: bytes, advice: str) -> None:
        self._path, self._advice = path, advice
        self._sums = np.frombuffer(sums, ">u4")
        size = path.stat().st_size
        if -(-size // CHUNK) != len(self._sums):
            raise ValueError(f"it has {size} bytes, which is not what was written")
        self._bytes = np.memmap(path, np.uint8, mode="r")
        self._sound = np.zeros(len(self._sums), dtype=bool)
        self._check(0, 1)  # the header, before NumPy believes it
        self._array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        self._start = int(self._array.offset)

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, place: int) -> Any: ...

    @overload
    def __getitem__(self, place: slice) -> NDArray[Any]: ...

    def __getitem__(self, place: int | slice) -> Any:
        """Return a number, or a slice without a step.

        Raises:
            DamagedError: A chunk does not match its checksum.
        """
        part = place if isinstance(place, slice) else slice(place, place + 1 or None)
        first, last, _ = part.indices(len(self._array))
        if first < last:
            width = self._array.itemsize
            self._check(self._start + first * width, self._start + last * width)
        return self._array[place]

    def at(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Return the numbers at some places, ``[places]``; only their chunks are read.

        Raises:
            DamagedError: A chunk does not match its checksum.
        """
        width = self._array.itemsize
        first = self._start + places * width
        touched = np.concatenate([first // CHUNK, (first + width - 1) // CHUNK])
        self._check_chunks(np.unique(touched))
        return np.asarray(self._array[places])

    def _check(self, first: int, last: int) -> None:
        """Check the chunks that contain some bytes."""
        chunks = slice(first // CHUNK, -(-last // CHUNK))
        if not self._sound[chunks].all():
            self._check_chunks(np.arange(chunks.start, chunks.stop))

    def _check_chunks(self, chunks: NDArray[np.int64]) -> None:
        for chunk in chunks[~self._sound[chunks]].tolist():
            start = chunk * CHUNK
            if zlib.crc32(self._bytes[start : start + CHUNK].data) != self._sums[chunk]:
                raise DamagedError(
                    f"{self._path} is damaged: bytes {start} to {start + CHUNK} are not what was "
                    f"written; {self._advice}"
                )
            self._sound[chunk] = True


def sealed(values: Mapping[str, Any]) -> bytes:
    """Return values as JSON that carries a checksum of itself, which ``unsealed`` checks."""
    return json.dumps({_SEAL: _sha256_of(values), **values}).encode()


def unsealed(content: bytes) -> dict[str, Any]:
    """Return the values in the result of ``sealed``.

    Raises:
        ValueError: They are not those that were sealed.
    """
    try:
        values = json.loads(content)
        expected = values.pop(_SEAL)
    except (RecursionError, KeyError, TypeError, AttributeError):
        raise ValueError("it has no checksum") from None
    if _sha256_of(values) != expected:
        raise ValueError("it is not what was written")
    return dict(values)


def checksums_of(folder: Path, files: Iterable[str], arrays: Iterable[str] = ()) -> Checksums:
    """Return the checksums of some files of a folder.

    Args:
        folder: The folder.
        files: Names of small files.
        arrays: Names of large arrays, whose chunks are checked one by one.
    """
    whole = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    return Checksums(whole, {name: _chunk_sums(folder / name) for name in arrays})


def _chunk_sums(path: Path) -> str:
    with path.open("rb") as file:
        return "".join(f"{zlib.crc32(chunk):08x}" for chunk in iter(lambda: file.read(CHUNK), b""))


def _sha256_of(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
