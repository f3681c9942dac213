"""Large arrays are checked chunk by chunk, when a chunk is first touched."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsi import UserError
from fedsi.checksums import CHUNK, CheckedArray, Checksums, checksums_of

LENGTH = 5 * CHUNK // 8 + 7


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """An array of several chunks, with its checksums beside it."""
    folder = tmp_path_factory.mktemp("array")
    numbers = np.random.default_rng(0).integers(0, 1 << 62, LENGTH)
    np.save(folder / "numbers.npy", numbers)
    checksums_of(folder, (), ["numbers.npy"]).write(folder)
    return folder, numbers


def mapped(folder: Path) -> CheckedArray:
    return Checksums.read(folder, "").map_array(folder / "numbers.npy", "make it anew")


places = st.integers(-LENGTH, LENGTH - 1)


@settings(max_examples=100)
@given(places, places, st.lists(st.integers(0, LENGTH - 1), min_size=1, max_size=5))
def test_it_reads_like_an_array(
    stored: tuple[Path, np.ndarray], first: int, last: int, some: list[int]
) -> None:
    folder, numbers = stored
    array = mapped(folder)
    assert len(array) == LENGTH
    assert array[first] == numbers[first]
    assert np.array_equal(array[first:last], numbers[first:last])
    assert np.array_equal(array.at(np.array(some)), numbers[some])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.integers(0, LENGTH - 1), st.integers(0, 7), st.integers(1, 255))
def test_what_was_changed_is_noticed_where_it_is_read(
    tmp_path: Path, stored: tuple[Path, np.ndarray], place: int, byte: int, flip: int
) -> None:
    folder, numbers = stored
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((folder / "numbers.npy").read_bytes())
    content[len(content) - 8 * (LENGTH - place) + byte] ^= flip
    (tmp_path / "numbers.npy").write_bytes(content)
    try:
        array = mapped(tmp_path)
    except UserError:  # it shares a chunk with the header
        assert place < CHUNK // 8
        return
    for read in (lambda: array[place], lambda: array[:], lambda: array.at(np.array([place]))):
        with pytest.raises(UserError, match=r"numbers\.npy is damaged: .*; make it anew"):
            read()
    far = (place + LENGTH // 2) % LENGTH
    assert array[far] == numbers[far]
