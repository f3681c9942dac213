from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedsi.messages import MessageError, Train, Trained, from_parts, to_parts
from simulations.engines.wire import Frame, decode, encode

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
    frame = decode(encode(Frame("train", 7, records(request), reason)))
    assert (frame.kind, frame.number, frame.reason) == ("train", 7, reason)
    named = {k: array.numpy() for k, array in frame.content.array_records["arrays"].items()}
    received = from_parts(Train, named, frame.content.config_records["values"])
    for name, value in to_parts(request)[0].items():
        np.testing.assert_array_equal(getattr(received, name), value)
        assert getattr(received, name).dtype == value.dtype
    assert received.experiment == request.experiment
    assert received.round_number == request.round_number


def test_an_empty_frame_survives() -> None:
    frame = decode(encode(Frame("error", 1, RecordDict(), "broken")))
    assert len(frame.content) == 0
    assert frame.reason == "broken"


SUMS = np.zeros(3, np.int64)
ROWS = np.zeros((2, 5))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"sums": SUMS}, r"has the parts \['rows', 'sums'\], received \['sums'\]"),
        ({"sums": SUMS, "rows": ROWS, "more": SUMS}, "received .*more"),
        ({"sums": SUMS.astype(np.float64), "rows": ROWS}, "part sums of Trained is not"),
        ({"sums": SUMS, "rows": ROWS[0]}, "part rows of Trained is not"),
    ],
)
def test_what_does_not_follow_the_schema_is_refused(parts: dict[str, Any], expected: str) -> None:
    with pytest.raises(MessageError, match=expected):
        from_parts(Trained, parts, {})
