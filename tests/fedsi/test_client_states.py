from pathlib import Path

import numpy as np
import pytest

from fedsi.client_states import ClientStates
from fedsi.errors import DamagedError, UserError

NAMES, SIZE = ("control", "times"), 5
VECTORS = {name: np.arange(SIZE, dtype=np.float32) + k for k, name in enumerate(NAMES)}


@pytest.fixture
def states(tmp_path: Path) -> ClientStates:
    found = ClientStates(tmp_path / "clients")
    found.begin(None)
    return found


def rounds(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(numbers, np.int32)


def names(states: ClientStates) -> set[str]:
    return {path.name for path in states.folder.iterdir()}


def test_what_was_written_is_read_and_a_new_client_has_zeros(states: ClientStates) -> None:
    states.write(3, 2, VECTORS)
    found = states.read(3, 2, NAMES, SIZE)
    assert all(np.array_equal(found[name], VECTORS[name]) for name in NAMES)
    assert not any(vector.any() for vector in states.read(3, 0, NAMES, SIZE).values())
    assert states.folder.stat().st_mode & 0o077 == 0
    assert states.path(3, 2).stat().st_mode & 0o077 == 0


def test_files_that_are_not_what_was_written_are_refused(states: ClientStates) -> None:
    states.write(3, 2, VECTORS)
    content = bytearray(states.path(3, 2).read_bytes())
    states.path(4, 2).write_bytes(content)  # another client's
    states.path(3, 1).write_bytes(content)  # another round's
    content[-1] ^= 1
    states.path(3, 2).write_bytes(content)
    for client, number in ((3, 2), (4, 2), (3, 1), (5, 1)):
        with pytest.raises(DamagedError, match=rf"state .* of client {client} is damaged or miss"):
            states.read(client, number, NAMES, SIZE)
    states.write(3, 2, VECTORS)
    with pytest.raises(DamagedError, match="other vectors"):
        states.read(3, 2, NAMES, SIZE + 1)


def test_replaced_and_unfinished_states_are_removed(states: ClientStates) -> None:
    for client, number in ((0, 1), (0, 2), (1, 1), (1, 3), (2, 3)):
        states.write(client, number, VECTORS)
    states.replace(rounds(1, 1, 0), rounds(2, 1, 0), lost=False)
    assert names(states) == {
        "0-2.safetensors",
        "1-1.safetensors",
        "1-3.safetensors",
        "2-3.safetensors",
    }
    (states.folder / ".part-x").touch()
    states.begin(rounds(2, 1, 0))  # as a run that is resumed after round 2
    assert names(states) == {"0-2.safetensors", "1-1.safetensors"}
    states.sync(rounds(2, 1, 0), 2)
    with pytest.raises(UserError, match="the state of client 2 is not at"):
        states.sync(rounds(2, 1, 2), 2)
