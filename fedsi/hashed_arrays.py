"""Named arrays in one safetensors file that has a hash of its own content."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

Arrays = Mapping[str, NDArray[Any]]


def to_bytes(arrays: Arrays, meta: Mapping[str, str]) -> bytes:
    """Return arrays and texts as the bytes of a safetensors file."""
    return bytes(save(dict(arrays), metadata={**meta, "sha256": _sha256_of(arrays, meta)}))


def from_bytes(content: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the arrays and texts that ``to_bytes`` wrote; the arrays are writable.

    Raises:
        ValueError: The content is damaged; says why.
    """
    try:
        arrays = {name: np.array(value) for name, value in load(content).items()}
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        meta = dict(header["__metadata__"])
        sound = meta.pop("sha256") == _sha256_of(arrays, meta)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from None
    if not sound:
        raise ValueError("its SHA-256 is not that of its content")
    return arrays, meta


def _sha256_of(arrays: Arrays, meta: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(meta), sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
