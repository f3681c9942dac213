import math
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from fedsi.messages import (
    MessageError,
    Train,
    Trained,
    array_bytes,
    array_of_bytes,
    from_parts,
    to_parts,
)
from simulations.engines.wire import Frame, from_pieces, to_pieces

requests = st.builds(
    Train,
    experiment=st.text(),
    round_number=st.integers(0, 2**40),
    parameters=arrays(np.float32, st.integers(0, 9)),
    clients=arrays(np.int64, st.integers(0, 9)),
)


def records(message: Any) -> RecordDict:
    named, values = to_parts(message)
    return RecordDict(
        {
            "arrays": ArrayRecord({name: Array(value) for name, value in named.items()}),
            "values": ConfigRecord(values),
        }
    )


@given(requests, st.text())
def test_messages_survive_flowers_records_and_the_wire(request: Train, reason: str) -> None:
    frame = from_pieces(to_pieces(Frame("train", 7, records(request), reason)))
    assert (frame.kind, frame.number, frame.reason) == ("train", 7, reason)
    named = {k: array.numpy() for k, array in frame.content.array_records["arrays"].items()}
    received = from_parts(Train, named, frame.content.config_records["values"])
    for name, value in to_parts(request)[0].items():
        np.testing.assert_array_equal(getattr(received, name), value)
        assert getattr(received, name).dtype == value.dtype
    assert received.experiment == request.experiment
    assert received.round_number == request.round_number


@given(
    arrays(st.sampled_from(["f4", "i8", "f8"]), array_shapes(min_dims=1, max_dims=2, min_side=0))
)
def test_an_array_is_carried_as_flower_would(array: NDArray[Any]) -> None:
    data = array_bytes(array)
    assert data == Array(array).data
    read = array_of_bytes(data)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def npy(array: NDArray[Any]) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def headed(header: bytes) -> bytes:
    """Return a file with this header and 16 bytes of numbers."""
    return (
        b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n" + bytes(16)
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing like it",
        npy(np.array([{}])),
        npy(np.zeros((2, 2), order="F")),
        npy(np.zeros(9))[:-1],
        npy(np.zeros(9))[:70],
        npy(np.zeros(9)).replace(b"(9,)", b"(7,)"),
        headed(b"{'descr': '<f4"),
        headed(b"-" * 9000 + b"1"),
        headed(b"{'descr': '|O8', 'fortran_order': False, 'shape': (1,), }"),
        headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
        headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999999,), }"),
    ],
)
def test_bytes_that_are_no_array_of_numbers_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # some are NumPy's own words
        array_of_bytes(data)


@given(
    arrays(st.sampled_from(["f4", "i8", "f8"]), array_shapes(max_dims=2, min_side=0, max_side=9)),
    st.integers(0, 2000),
    st.integers(1, 255),
)
def test_a_changed_byte_allocates_nothing_beyond_the_message(
    array: NDArray[Any], place: int, change: int
) -> None:
    data = bytearray(array_bytes(array))
    data[place % len(data)] ^= change
    try:
        read = array_of_bytes(bytes(data))
    except ValueError:
        return
    assert read.nbytes <= len(data)
    assert not read.flags.owndata or read.nbytes == 0


@given(st.lists(st.integers(0, 10**18 - 1), min_size=1, max_size=4), st.binary(max_size=64))
def test_a_size_beyond_the_message_is_refused(shape: list[int], content: bytes) -> None:
    described = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({described}), }}\n".encode()
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content
    if 4 * math.prod(shape) == len(content):
        assert array_of_bytes(data).size == math.prod(shape)
    else:
        with pytest.raises(ValueError):  # noqa: PT011  # some are NumPy's own words
            array_of_bytes(data)


def test_an_empty_frame_survives() -> None:
    frame = from_pieces(to_pieces(Frame("error", 1, RecordDict(), "broken")))
    assert len(frame.content) == 0
    assert frame.reason == "broken"


SUMS = np.zeros(3, np.int64)
ROWS = np.zeros((2, 5))
TRAINED = {
    "sums": SUMS,
    "rows": ROWS,
    "returned": SUMS,
    "counts": SUMS,
    "updates": SUMS.astype(np.float32),
}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"sums": SUMS}, r"parts \['counts', .*, 'sums', 'updates'\], received \['sums'\]"),
        ({**TRAINED, "more": SUMS}, "received .*more"),
        ({**TRAINED, "sums": SUMS.astype(np.float64)}, "part sums of Trained is not"),
        ({**TRAINED, "rows": ROWS[0]}, "part rows of Trained is not"),
    ],
)
def test_what_does_not_follow_the_schema_is_refused(parts: dict[str, Any], expected: str) -> None:
    with pytest.raises(MessageError, match=expected):
        from_parts(Trained, parts, {})
