"""TensorFlow Federated's HDF5 files: ``/examples/<client id>/<feature>``."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedsi.data.corpus import Row
from fedsi.data.formats.files import Columns, Part, Place, faults
from fedsi.data.formats.rows import TEXT_COLUMNS, no_feature, rows_of_client
from fedsi.errors import UserError
from fedsi.extras import optional

_UNLIMITED = (
    "this system cannot limit the memory of a process; a damaged HDF5 file may use all there is"
)
_PROGRAM = Path(__file__).with_name("hdf5_process.py")


def read_tff_hdf5(part: Part, columns: Columns) -> Iterator[Row]:
    """Read the examples of every client, in a separate process that damaged files may crash."""
    optional("h5py", "hdf5")
    place = Place()
    candidates = (columns.text,) if columns.text else TEXT_COLUMNS
    arguments = [part.path, ",".join(candidates), columns.label or ""]
    with faults(part, place):
        for values in _clients([sys.executable, "-P", _PROGRAM, *arguments]):
            if "unlimited" in values:
                warnings.warn(_UNLIMITED, stacklevel=2)
                continue
            if "missing" in values:
                raise UserError(f"{part} has no group 'examples', which TFF's HDF5 files have")
            place.text = values.get("place") or f"client {values['client']!r}"
            if "fault" in values:
                raise ValueError(values["fault"])
            if "features" in values:
                raise no_feature(part, values["features"], candidates)
            texts, labels = _checked(values["texts"]), _checked(values["labels"])
            yield from rows_of_client(part, place, values["client"], texts, labels)


def _clients(command: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects that the program prints.

    Raises:
        ValueError: The program did not finish.
    """
    # The memory limit would also count the stacks of NumPy's threads.
    few = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=few, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            for line in process.stdout or ():
                values = json.loads(line)
                if "end" in values:
                    return
                yield values
        finally:
            process.kill()
    raise ValueError("the HDF5 library stopped")


def _checked(value: Any) -> Any:
    """Return a value in which every text is UTF-8.

    Raises:
        UnicodeDecodeError: A text has bytes that are not UTF-8.
    """
    if isinstance(value, list):
        return [_checked(item) for item in value]
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "surrogateescape").decode()
    return value
