"""Reading HDF5 where the system cannot limit a process's memory."""

from pathlib import Path

import pytest

from fedsi.data.formats import hdf5_process, tff_hdf5
from fedsi.data.formats.files import Columns, Part
from tests.fedsi.data.formats.writers import TEXTS, write_hdf5

UNLIMITED = """
import resource, runpy, sys
def refuse(*_): raise ValueError("current limit exceeds maximum limit")
resource.setrlimit = refuse
runpy.run_path({program!r}, run_name="__main__")
"""


def test_memory_that_cannot_be_limited_is_one_warning_and_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hdf5(tmp_path / "c.h5", TEXTS)
    (tmp_path / "program.py").write_text(UNLIMITED.format(program=hdf5_process.__file__))
    monkeypatch.setattr(tff_hdf5, "_PROGRAM", tmp_path / "program.py")
    with pytest.warns(UserWarning, match="cannot limit the memory"):
        rows = list(tff_hdf5.read_tff_hdf5(Part(tmp_path / "c.h5", "c.h5"), Columns()))
    assert sorted(row.text for row in rows) == sorted(
        text for texts in TEXTS.values() for text in texts
    )
